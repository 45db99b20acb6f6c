//! A terminal that is drawn on without waiting for it.

use std::fmt::Write as _;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::TermLike;

use super::lines;

/// Stdout, where it is a terminal: what is drawn goes there in one piece with each
/// [`flush`](TermLike::flush).
#[derive(Debug, Default)]
pub(super) struct Terminal {
    /// Only the thread that draws takes it.
    drawn: Mutex<String>,
}

/// The width of a terminal that does not tell.
const COLUMNS: u16 = 80;

impl Terminal {
    fn drawn(&self) -> MutexGuard<'_, String> {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a control sequence that does something so many times, if any.
    fn control(&self, times: usize, code: char) -> io::Result<()> {
        if times > 0 {
            write!(self.drawn(), "\x1b[{times}{code}").map_err(io::Error::other)?;
        }
        Ok(())
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        match rustix::termios::tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 => size.ws_col,
            _ => COLUMNS,
        }
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        self.control(lines, 'A')
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.control(lines, 'B')
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.control(columns, 'C')
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.control(columns, 'D')
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.write_str(line)?;
        self.write_str("\r\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.drawn().push_str(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.write_str("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let drawn = std::mem::take(&mut *self.drawn());
        if !drawn.is_empty() {
            lines::stdout().write(drawn.as_bytes());
        }
        Ok(())
    }
}

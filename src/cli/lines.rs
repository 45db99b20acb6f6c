//! Lines on stderr and stdout that nobody waits for: a thread of their own writes them, and what
//! it can't write is lost and counted.
//!
//! Whoever reads them may end, or read nothing, or not be there at all. A shard that stood in
//! `write` would stand still with all its sessions, and one that panicked would end them.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use shaddock::redact_credentials;

use super::log_form;

/// Bytes that wait to be written on one of the two. A line that would be more is lost.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// Lines that wait to be written on one of the two; one more is lost.
const QUEUE_LINES_MAX: usize = 4_096;
/// A longer line is cut.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// The longest wait at the end of the process for what is not written yet.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// The time after which a stream that takes nothing at the moment is asked again.
const RETRY: Duration = Duration::from_millis(10);
/// The time after which it is tried again to tell what was lost.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// The lines that are to be written to one of the process's streams.
#[derive(Debug)]
pub(crate) struct Lines {
    queue: ArrayQueue<Box<[u8]>>,
    queue_bytes: AtomicUsize,
    /// Lines that were to be written, and those of them that are written or lost.
    begun: AtomicU64,
    done: AtomicU64,
    /// Lost since the start.
    lost: AtomicU64,
    /// Wakes the thread that writes; none if it could not be started.
    writer: OnceLock<Thread>,
}

/// The log, and what else is told on stderr.
pub(crate) fn stderr() -> &'static Arc<Lines> {
    static LINES: OnceLock<Arc<Lines>> = OnceLock::new();
    LINES.get_or_init(|| Lines::start("log", io::stderr().as_fd(), Losses::Tell))
}

/// The addresses to connect to, and the figures.
pub(crate) fn stdout() -> &'static Arc<Lines> {
    static LINES: OnceLock<Arc<Lines>> = OnceLock::new();
    LINES.get_or_init(|| Lines::start("figures", io::stdout().as_fd(), Losses::Count))
}

/// Tells something on stderr, without the logins that are in it.
pub(crate) fn tell(text: &str) {
    stderr().write(redact_credentials(text).as_bytes());
}

/// Waits until all is written, but not for long. To be called when the process is about to end.
pub(crate) fn flush() {
    let deadline = Instant::now() + FLUSH_MAX;
    let is_waiting = || [stderr(), stdout()].iter().any(|lines| lines.is_waiting());
    while is_waiting() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
}

/// The use that is made of the number of lost lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Losses {
    /// It is told when writing works again.
    Tell,
    Count,
}

impl Lines {
    fn start(name: &str, stream: BorrowedFd<'_>, losses: Losses) -> Arc<Self> {
        let lines = Arc::new(Self {
            queue: ArrayQueue::new(QUEUE_LINES_MAX),
            queue_bytes: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            writer: OnceLock::new(),
        });
        // A descriptor of its own: those of the standard library have locks, which whoever else
        // prints would wait for.
        let Ok(stream) = stream.try_clone_to_owned() else { return lines };
        let mut writer = Writer {
            lines: Arc::clone(&lines),
            stream: File::from(stream),
            losses,
            told: 0,
            is_torn: false,
        };
        if let Ok(thread) = thread::Builder::new().name(name.into()).spawn(move || writer.run()) {
            lines.writer.set(thread.thread().clone()).ok();
        }
        lines
    }

    /// Writes a line, which ends with its newline, at once or a little later; never waits.
    pub(crate) fn write(&self, line: &[u8]) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let cut;
        let line = match line.get(..LINE_BYTES_MAX) {
            Some(start) if line.len() > LINE_BYTES_MAX => {
                cut = [start, b"\n"].concat();
                &cut
            }
            _ => line,
        };
        let before = self.queue_bytes.fetch_add(line.len(), Ordering::Relaxed);
        let has_room = before + line.len() <= QUEUE_BYTES_MAX;
        match self.writer.get() {
            Some(writer) if has_room && self.queue.push(line.into()).is_ok() => writer.unpark(),
            _ => {
                self.queue_bytes.fetch_sub(line.len(), Ordering::Relaxed);
                self.lose();
            }
        }
    }

    /// Lines that were lost since the start.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.done.fetch_add(1, Ordering::Release);
    }

    fn is_waiting(&self) -> bool {
        self.done.load(Ordering::Acquire) < self.begun.load(Ordering::Relaxed)
    }
}

/// A writer that tracing writes one line into.
pub(crate) struct LogLine;

impl Write for LogLine {
    /// Takes a whole line, as tracing gives it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        tell(&String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread that writes, and may wait.
struct Writer {
    lines: Arc<Lines>,
    stream: File,
    losses: Losses,
    /// Lost lines that have been told.
    told: u64,
    /// A part of a line has been written, and not its end.
    is_torn: bool,
}

impl Writer {
    fn run(&mut self) {
        loop {
            while let Some(line) = self.lines.queue.pop() {
                self.tell_losses();
                let is_written = self.write(&line);
                self.lines.queue_bytes.fetch_sub(line.len(), Ordering::Relaxed);
                match is_written {
                    true => drop(self.lines.done.fetch_add(1, Ordering::Release)),
                    false => self.lines.lose(),
                }
            }
            self.tell_losses();
            match self.has_losses() {
                true => thread::park_timeout(TELL_EVERY),
                false => thread::park(),
            }
        }
    }

    fn has_losses(&self) -> bool {
        self.losses == Losses::Tell && self.lines.lost() > self.told
    }

    fn tell_losses(&mut self) {
        if !self.has_losses() {
            return;
        }
        let lost = self.lines.lost();
        let newline = if self.is_torn { "\n" } else { "" };
        let count = lost - self.told;
        let verb = if count == 1 { "line was" } else { "lines were" };
        let line = log_form::line("WARN", &format!("shaddock: {count} log {verb} lost"));
        if self.write(format!("{newline}{line}").as_bytes()) {
            self.told = lost;
        }
    }

    /// Writes all of it, for as long as that takes; `false` where the stream takes no more.
    fn write(&mut self, mut line: &[u8]) -> bool {
        self.wait_for_room(line.len());
        while !line.is_empty() {
            match self.stream.write(line) {
                Ok(0) => return false,
                Ok(len) => {
                    line = &line[len..];
                    self.is_torn = !line.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Somebody who has the stream, too, has set it not to block.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY),
                Err(_) => return false,
            }
        }
        true
    }

    /// Leaves half of a pipe empty. What the standard library says when memory is out goes there by
    /// itself, from a shard's thread, and would wait in a full one for ever instead of ending the
    /// process.
    fn wait_for_room(&self, len: usize) {
        let Ok(pipe_bytes) = rustix::pipe::fcntl_getpipe_size(&self.stream) else { return };
        let unread_bytes = || rustix::io::ioctl_fionread(&self.stream).unwrap_or_default();
        while unread_bytes() > 0 && unread_bytes() + len as u64 > pipe_bytes as u64 / 2 {
            thread::sleep(RETRY);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn until(text: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < deadline, "{text}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_long_line_is_cut() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let lines = Lines::start("test", pipe.as_fd(), Losses::Tell);
        lines.write(&[b'x'; LINE_BYTES_MAX + 1]);
        let mut line = [0; LINE_BYTES_MAX + 1];
        reader.read_exact(&mut line).unwrap();
        assert_eq!((line[LINE_BYTES_MAX - 1], line[LINE_BYTES_MAX]), (b'x', b'\n'));
    }

    fn filled(lines: &Lines) -> u64 {
        let line = vec![b'x'; 1_000];
        (0..2_000).for_each(|_| lines.write(&line));
        lines.lost()
    }

    #[test]
    fn what_nobody_reads_is_bounded_and_told_once_somebody_does() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let lines = Lines::start("test", pipe.as_fd(), Losses::Tell);
        drop(pipe);
        let lost = filled(&lines);
        assert!(lost >= 2_000 - (QUEUE_BYTES_MAX as u64 + 64 * 1024) / 1_000, "{lost}");
        assert!(lines.queue_bytes.load(Ordering::Relaxed) <= QUEUE_BYTES_MAX);
        let (mut text, mut buffer) = (String::new(), vec![0; 65_536]);
        let told = |text: &str| {
            let counts = text.split("shaddock: ").skip(1).map(|told| told.split(' ').next());
            counts.map(|count| count.unwrap_or("0").parse::<u64>().unwrap()).sum::<u64>()
        };
        while text.matches('x').count() < (2_000 - lost as usize) * 1_000 || told(&text) < lost {
            let len = reader.read(&mut buffer).unwrap();
            text.push_str(std::str::from_utf8(&buffer[..len]).unwrap());
        }
        assert!(text.ends_with('x') && text.contains(" log lines were lost\n"));
        until("all is done", || !lines.is_waiting());
        assert_eq!(lines.lost(), lost);
    }

    #[test]
    fn lines_are_bounded_in_number_too() {
        const LINES: u64 = 10_000;
        let (_reader, pipe) = io::pipe().unwrap();
        let lines = Lines::start("test", pipe.as_fd(), Losses::Tell);
        (0..LINES).for_each(|_| lines.write(&[b'x'; 100]));
        let (kept, len_max) = (LINES - lines.lost(), QUEUE_LINES_MAX as u64);
        assert!((len_max..=len_max + 64 * 1024 / 100).contains(&kept), "{kept}");
    }

    #[test]
    fn a_reader_that_has_gone_costs_the_lines_and_nothing_else() {
        let (reader, pipe) = io::pipe().unwrap();
        let lines = Lines::start("test", pipe.as_fd(), Losses::Tell);
        drop(reader);
        filled(&lines);
        until("all is done", || !lines.is_waiting());
        assert_eq!((lines.lost(), lines.queue_bytes.load(Ordering::Relaxed)), (2_000, 0));
    }

    #[test]
    fn a_pipe_is_never_filled() {
        let (_reader, pipe) = io::pipe().unwrap();
        let lines = Lines::start("test", pipe.as_fd(), Losses::Tell);
        filled(&lines);
        thread::sleep(Duration::from_millis(50));
        let unread = rustix::io::ioctl_fionread(&pipe).unwrap();
        assert!((1_000..=32_768).contains(&unread), "{unread}");
    }
}

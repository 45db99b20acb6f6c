//! A configuration that a shell pipes in: `--config /dev/stdin`, or `--config <(sops -d a.toml)`.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use shaddock::{FILE_BYTES_MAX, read_text_file};

/// The time that whoever writes the pipe may take to its end.
const PATIENCE: Duration = Duration::from_secs(20);
/// The time between two looks for what was written.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Reads a file, or a pipe that the process has from its parent. Another FIFO is no file: where
/// nobody has opened it to write, it looks like an empty one.
///
/// # Errors
/// As [`read_text_file`]; [`ErrorKind::TimedOut`] where the pipe's writer does not end.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let is_inherited = ["/dev/stdin", "/dev/fd", "/proc/self/fd"].map(|of| path.starts_with(of));
    let is_pipe = || fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    if is_inherited.contains(&true) && is_pipe() {
        return read_pipe(path, PATIENCE);
    }
    read_text_file(path, FILE_BYTES_MAX)
}

fn read_pipe(path: &Path, patience: Duration) -> io::Result<String> {
    let deadline = Instant::now() + patience;
    let pipe = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let mut pipe = pipe.take(FILE_BYTES_MAX + 1);
    let mut bytes = Vec::new();
    // What was read before it would block is kept.
    while let Err(error) = pipe.read_to_end(&mut bytes) {
        if error.kind() != ErrorKind::WouldBlock {
            return Err(error);
        }
        if Instant::now() >= deadline {
            let text = format!("a pipe that was not closed within {patience:?}");
            return Err(io::Error::new(ErrorKind::TimedOut, text));
        }
        thread::sleep(LOOK_EVERY);
    }
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let text = format!("a pipe with more than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, text));
    }
    let other = |_| io::Error::new(ErrorKind::InvalidData, "other bytes than text in UTF-8");
    String::from_utf8(bytes).map_err(other)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_pipe_is_read_to_its_end_in_time() {
        let (reader, mut writer) = io::pipe().unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
        let writing = thread::spawn(move || {
            writer.write_all(b"[server]\n").unwrap();
            thread::sleep(Duration::from_millis(50));
            writer.write_all(b"id = \"a\"\n").unwrap();
        });
        assert_eq!(read(&path).unwrap(), "[server]\nid = \"a\"\n");
        writing.join().unwrap();

        let (reader, _writer) = io::pipe().unwrap();
        let path = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
        let error = read_pipe(&path, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "a pipe that was not closed within 20ms");
    }
}

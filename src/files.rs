//! Files that operators name: certificates, tables, secrets and the configuration.

use std::fs::{self, FileType, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Bytes of a file that an operator names: a certificate, a table or a configuration. One that is
/// longer is refused.
pub const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of a file that holds one secret, such as a token or a login. One that is longer is
/// refused.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Reads a regular file of `bytes_max` bytes at most. Symbolic links are followed.
///
/// It does not wait for another process, as the read of a FIFO or of a terminal does, and takes no
/// more memory than the bound, as the read of `/dev/zero` would.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use shaddock::{FILE_BYTES_MAX, read_file};
///
/// let manifest = read_file("Cargo.toml", FILE_BYTES_MAX)?;
/// assert!(manifest.starts_with(b"[workspace]"));
///
/// let error = read_file("/dev/zero", FILE_BYTES_MAX).unwrap_err();
/// assert!(error.to_string().starts_with("a device"));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The system's error; [`io::ErrorKind::InvalidInput`] where it is no regular file, and
/// [`io::ErrorKind::FileTooLarge`] where it is longer. The text tells what it is.
pub fn read_file(path: impl AsRef<Path>, bytes_max: u64) -> io::Result<Vec<u8>> {
    let path = path.as_ref();
    // Before it is opened, as that alone does something to some devices.
    check(&fs::metadata(path)?, bytes_max)?;
    // It may be another file by now, whose opening must not wait either.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    check(&file.metadata()?, bytes_max)?;
    let mut bytes = Vec::new();
    // It may grow, and files of `/proc` have no length.
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(too_long(bytes_max));
    }
    Ok(bytes)
}

/// The same of a text in UTF-8.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use shaddock::{SECRET_BYTES_MAX, read_text_file};
///
/// let manifest = read_text_file("Cargo.toml", SECRET_BYTES_MAX)?;
/// assert!(manifest.contains("name = \"shaddock\""));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`read_file`]; [`io::ErrorKind::InvalidData`] where it is no text.
pub fn read_text_file(path: impl AsRef<Path>, bytes_max: u64) -> io::Result<String> {
    let text = String::from_utf8(read_file(path, bytes_max)?);
    text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "other bytes than text in UTF-8"))
}

fn check(metadata: &Metadata, bytes_max: u64) -> io::Result<()> {
    if !metadata.is_file() {
        let what = name_of(metadata.file_type());
        let text = format!("{what}: name a regular file instead");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    if metadata.len() > bytes_max { Err(too_long(bytes_max)) } else { Ok(()) }
}

fn name_of(file_type: FileType) -> &'static str {
    if file_type.is_dir() {
        "a directory"
    } else if file_type.is_fifo() {
        "a FIFO"
    } else if file_type.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

fn too_long(bytes_max: u64) -> io::Error {
    let text = format!("a file of more than {bytes_max} bytes: name a shorter one");
    io::Error::new(io::ErrorKind::FileTooLarge, text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use support::folder::Folder;

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_named() {
        let folder = Folder::create();
        let fifo = folder.fifo("fifo");
        let socket = folder.join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        let link = folder.join("link");
        symlink(&fifo, &link).unwrap();
        for (path, what) in [
            (folder.path(), "a directory"),
            (&fifo, "a FIFO"),
            (&link, "a FIFO"),
            (&socket, "a socket"),
            (Path::new("/dev/zero"), "a device"),
        ] {
            let error = read_file(path, FILE_BYTES_MAX).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path:?}");
            let expected = format!("{what}: name a regular file instead");
            assert_eq!(error.to_string(), expected, "{path:?}");
        }
        let none = read_file(folder.join("none"), FILE_BYTES_MAX).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let folder = Folder::create();
        let path = folder.write("five", "12345");
        let link = folder.join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(read_file(&link, 5).unwrap(), b"12345");
        let sparse = folder.sparse("sparse", 1 << 40);
        for (path, bytes_max) in
            [(&*path, 4), (&sparse, FILE_BYTES_MAX), (Path::new("/proc/self/status"), 9)]
        {
            let error = read_file(path, bytes_max).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{path:?}");
            let expected = format!("a file of more than {bytes_max} bytes: name a shorter one");
            assert_eq!(error.to_string(), expected);
        }
        assert!(read_text_file("/proc/self/status", FILE_BYTES_MAX).unwrap().contains("VmRSS"));
    }

    #[test]
    fn other_bytes_are_no_text() {
        let folder = Folder::create();
        fs::write(folder.join("latin"), b"\xe9t\xe9").unwrap();
        let error = read_text_file(folder.join("latin"), FILE_BYTES_MAX).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

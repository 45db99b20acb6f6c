//! Folders for what a test needs in files.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder that nobody else has, and that is gone with this.
pub struct Folder(PathBuf);

impl Folder {
    pub fn create() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("shaddock-test-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Self(path),
                // Of a process of the same number, which was killed.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file; gives its path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Makes a FIFO, in place of a file that may be there; gives its path.
    pub fn fifo(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        fs::remove_file(&path).ok();
        let status = Command::new("mkfifo").arg(&path).status();
        assert!(status.expect("mkfifo is installed").success());
        path
    }

    /// Makes a file of zeros that takes no room, in place of one that may be there; gives its path.
    pub fn sparse(&self, name: &str, len: u64) -> PathBuf {
        let path = self.join(name);
        fs::File::create(&path).unwrap().set_len(len).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A process that has been killed just now may write into it still.
        fs::remove_dir_all(&self.0).ok();
    }
}

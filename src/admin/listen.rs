//! The sockets on which the admin server listens.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::options::AdminOptions;
use crate::error::{EngineOption, StartError};

/// The sockets that are open.
pub(super) struct Listening {
    pub(super) unix: Option<UnixSocket>,
    pub(super) tcp: Option<(TcpListener, SocketAddr)>,
}

/// A Unix socket that listens; its file goes with it.
pub(super) struct UnixSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// The file's device and number, by which it is known to be this one.
    file: Option<(u64, u64)>,
}

impl Listening {
    /// Opens all that the options ask for.
    pub(super) fn open(options: &AdminOptions) -> Result<Self, StartError> {
        let tcp = options.listen.as_deref().map(open_tcp).transpose()?;
        let unix = options.socket.as_deref().map(open_unix).transpose()?;
        Ok(Self { unix, tcp })
    }
}

/// The address that text names.
pub(super) fn resolve(address: &str) -> Result<SocketAddr, StartError> {
    let bad = |why: String| StartError::Option {
        option: EngineOption::Admin("admin.listen"),
        expected: format!("an address like 127.0.0.1:3011, which `{address}` is not ({why})"),
    };
    let mut addresses = address.to_socket_addrs().map_err(|error| bad(error.to_string()))?;
    addresses.next().ok_or_else(|| bad("it names none".into()))
}

fn open_tcp(address: &str) -> Result<(TcpListener, SocketAddr), StartError> {
    let address = resolve(address)?;
    let opened = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    opened.map_err(|error| StartError::Option {
        option: EngineOption::Admin("admin.listen"),
        expected: format!("an address that can be listened on, which {address} is not: {error}"),
    })
}

fn open_unix(path: &Path) -> Result<UnixSocket, StartError> {
    let bad = |expected: String| StartError::Option {
        option: EngineOption::Admin("admin.socket"),
        expected,
    };
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(bad(format!("a path that can be looked at ({shown}: {error})"))),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(bad(format!("another path than {shown}, where there is a file")));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(bad(format!(
                "another path than {shown}, where another process listens; stop that one first"
            )));
        }
        Ok(_) => {}
    }
    listen_unix(path).map_err(|error| {
        bad(format!("a path in a folder that this process may write to ({shown}: {error})"))
    })
}

/// Listens by another name first, and takes the right one once nobody else can reach the socket.
/// So there is no moment in which it is open to others, nor one in which a stale socket is gone and
/// the new one is not there.
fn listen_unix(path: &Path) -> io::Result<UnixSocket> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let first = path.with_file_name(name);
    fs::remove_file(&first).ok();
    let listener = UnixListener::bind(&first)?;
    let named = listener
        .set_nonblocking(true)
        .and_then(|()| fs::set_permissions(&first, Permissions::from_mode(0o600)))
        .and_then(|()| fs::rename(&first, path));
    if let Err(error) = named {
        fs::remove_file(&first).ok();
        return Err(error);
    }
    Ok(UnixSocket { listener, path: path.to_owned(), file: file_of(path) })
}

fn file_of(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Another process may have taken the name over.
        if self.file.is_some() && file_of(&self.path) == self.file {
            fs::remove_file(&self.path).ok();
        }
    }
}

//! A server for a few requests, one at a time: enough for a page and for the stand-in.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// A client's request.
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) body: &'a str,
}

/// An answer.
pub(crate) struct Answer {
    code: u16,
    kind: &'static str,
    body: String,
}

impl Answer {
    pub(crate) fn html(body: &str) -> Self {
        Self { code: 200, kind: "text/html; charset=utf-8", body: body.to_owned() }
    }

    pub(crate) fn text(body: String) -> Self {
        Self { code: 200, kind: "text/plain; charset=utf-8", body }
    }

    pub(crate) fn code(code: u16) -> Self {
        Self { code, kind: "text/plain; charset=utf-8", body: String::new() }
    }
}

/// Serves on a thread of its own, until the process ends.
pub(crate) fn serve(
    address: &str,
    answer: impl Fn(&Asked<'_>) -> Answer + Send + 'static,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    thread::Builder::new().name("http".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that is slow, or no client of HTTP's, is left.
            let _ = handle(stream, &answer);
        }
    })?;
    Ok(address)
}

fn handle(mut stream: TcpStream, answer: &impl Fn(&Asked<'_>) -> Answer) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let text = read(&mut stream)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let Answer { code, kind, body } = answer(&Asked { method, path, body });
    let head = format!(
        "HTTP/1.1 {code} -\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes())
}

/// A request, head and body.
fn read(stream: &mut TcpStream) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    while !is_whole(&bytes) {
        let len = stream.read(&mut chunk)?;
        bytes.extend_from_slice(&chunk[..len]);
        if len == 0 || bytes.len() > REQUEST_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let len = lengths.next().and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0);
    body.len() >= len
}

const PATIENCE: Duration = Duration::from_secs(1);
const REQUEST_BYTES_MAX: usize = 256 * 1024;

//! A client of HTTP/1.1 for one request at a time, over a Unix socket or TCP.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use shaddock::{SECRET_BYTES_MAX, read_text_file};

/// The way to an admin server.
pub(crate) struct Client {
    way: Way,
    host: String,
    token: Option<String>,
}

enum Way {
    Unix(PathBuf),
    Tcp(String),
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    body: Vec<u8>,
}

/// A connection to it.
trait Socket: Read + Write {}

impl<S: Read + Write> Socket for S {}

/// The longest wait for the server, whose own is shorter.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer, far above what a server sends.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of the head of a stream of events, and of a line of it.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;

impl Client {
    pub(crate) fn unix(path: PathBuf) -> Self {
        Self { way: Way::Unix(path), host: "localhost".into(), token: None }
    }

    pub(crate) fn tcp(address: &str, token_file: Option<&Path>) -> anyhow::Result<Self> {
        anyhow::ensure!(
            !address.starts_with("https://"),
            "the admin server speaks no TLS; give an address like http://127.0.0.1:3011"
        );
        let host = address.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let token = token_file.map(|file| {
            let text = read_text_file(file, SECRET_BYTES_MAX);
            let text = text.with_context(|| format!("can't read {}", file.display()))?;
            anyhow::Ok(text.trim().to_owned())
        });
        Ok(Self { way: Way::Tcp(host.clone()), host, token: token.transpose()? })
    }

    pub(crate) fn ask(&self, method: &str, target: &str) -> anyhow::Result<Answer> {
        let answer = exchange(self.connect()?, &self.request(method, target)?);
        answer.context("the admin server has not answered")
    }

    /// Follows the server-sent events of a target, each by its name and its data, until `take` is
    /// false or the server ends. The answer if there are none to follow.
    pub(crate) fn follow(
        &self,
        target: &str,
        mut take: impl FnMut(&str, &str) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Option<Answer>> {
        let mut socket = self.connect()?;
        socket.write_all(self.request("GET", target)?.as_bytes())?;
        let mut lines = BufReader::new(socket.take(u64::MAX));
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            anyhow::ensure!(head.len() < HEAD_BYTES_MAX, "the answer's head is too long");
            let len = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut head)?;
            anyhow::ensure!(len > 0, "the answer is cut short");
        }
        if !head.starts_with(b"HTTP/1.1 200") {
            lines.take(ANSWER_BYTES_MAX).read_to_end(&mut head)?;
            return Answer::parse(&head).map(Some);
        }
        let (mut line, mut name) = (String::new(), String::new());
        loop {
            line.clear();
            if lines.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)? == 0 {
                return Ok(None);
            }
            match line.trim_end().split_once(": ") {
                Some(("event", text)) => text.clone_into(&mut name),
                Some(("data", text)) if !take(&name, text)? => return Ok(None),
                _ => {}
            }
        }
    }

    fn request(&self, method: &str, target: &str) -> anyhow::Result<String> {
        let mut request =
            format!("{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.host);
        if let Some(token) = &self.token {
            write!(request, "Authorization: Bearer {token}\r\n")?;
        }
        request.push_str("Content-Length: 0\r\n\r\n");
        Ok(request)
    }

    fn connect(&self) -> anyhow::Result<Box<dyn Socket>> {
        Ok(match &self.way {
            Way::Unix(path) => {
                let socket = UnixStream::connect(path).with_context(|| {
                    format!(
                        "can't reach the admin server at {}; name its socket with --socket, or its \
                         address with --address",
                        path.display()
                    )
                })?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.set_write_timeout(Some(PATIENCE))?;
                Box::new(socket)
            }
            Way::Tcp(host) => {
                let unreachable = || format!("can't reach the admin server at {host}");
                let mut addresses = host.to_socket_addrs().with_context(unreachable)?;
                let address = addresses.next().with_context(unreachable)?;
                let socket =
                    TcpStream::connect_timeout(&address, PATIENCE).with_context(unreachable)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.set_write_timeout(Some(PATIENCE))?;
                Box::new(socket)
            }
        })
    }
}

fn exchange(mut socket: impl Read + Write, request: &str) -> anyhow::Result<Answer> {
    socket.write_all(request.as_bytes())?;
    read_answer(socket)
}

/// Reads an answer up to its length, as what is between may keep the connection behind it.
fn read_answer(socket: impl Read) -> anyhow::Result<Answer> {
    let mut socket = BufReader::new(socket.take(ANSWER_BYTES_MAX));
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        anyhow::ensure!(bytes.len() < HEAD_BYTES_MAX, "the answer's head is too long");
        let len = socket.by_ref().take(HEAD_BYTES_MAX as u64).read_until(b'\n', &mut bytes)?;
        anyhow::ensure!(len > 0, "the answer is cut short");
    }
    let body_len = Head::parse(&bytes)?.body_len;
    socket.take(body_len.unwrap_or(ANSWER_BYTES_MAX)).read_to_end(&mut bytes)?;
    Answer::parse(&bytes)
}

/// The head of an answer.
struct Head {
    status: u16,
    /// Its own length in bytes.
    len: usize,
    /// The length of the body, where it is told.
    body_len: Option<u64>,
}

impl Head {
    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(len) = response.parse(bytes)? else {
            anyhow::bail!("the answer is cut short")
        };
        let is_length = |it: &&httparse::Header<'_>| it.name.eq_ignore_ascii_case("Content-Length");
        let body_len = response.headers.iter().find(is_length).map(|header| header.value);
        let body_len = body_len.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        Ok(Self { status: response.code.unwrap_or_default(), len, body_len })
    }
}

impl Answer {
    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let Head { status, len, body_len } = Head::parse(bytes)?;
        let body = bytes[len..].to_vec();
        anyhow::ensure!(
            body_len.is_none_or(|len| len == body.len() as u64),
            "the answer is cut short"
        );
        Ok(Self { status, body })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.body
    }

    pub(crate) fn text(&self) -> anyhow::Result<&str> {
        std::str::from_utf8(&self.body).context("the answer is no text")
    }
}

/// Text as a part of a path or a query.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(byte.into());
            }
            _ => write!(escaped, "%{byte:02X}").unwrap_or_default(),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_an_error() {
        let text = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno";
        let answer = Answer::parse(text.as_bytes()).unwrap();
        assert_eq!((answer.status, answer.text().unwrap()), (404, "no"));
        for end in 0..text.len() {
            assert!(Answer::parse(&text.as_bytes()[..end]).is_err(), "{end}");
        }
    }

    /// A connection that is kept open behind its bytes: whoever reads on waits.
    struct Kept<'a>(&'a [u8]);

    impl Read for Kept<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            assert!(!self.0.is_empty(), "nothing comes any more");
            // Few at once, so that there is something to wait for everywhere.
            let len = into.len().min(7);
            self.0.read(&mut into[..len])
        }
    }

    #[test]
    fn nothing_is_awaited_behind_a_whole_answer() {
        for body in ["", "ok", "a line\n"] {
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let answer = read_answer(Kept(text.as_bytes())).unwrap();
            assert_eq!((answer.status, answer.text().unwrap()), (200, body));
        }
        let until_closed = "HTTP/1.1 200 OK\r\n\r\nall of it";
        assert_eq!(read_answer(until_closed.as_bytes()).unwrap().text().unwrap(), "all of it");
        let cut = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok";
        assert!(read_answer(cut.as_bytes()).is_err());
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("a/b c%é"), "a%2Fb%20c%25%C3%A9");
    }
}

//! The servers that people would pick instead, each with the fixed echo of
//! [`Conversation`] and no sessions, routes or limits.

use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use fastwebsockets::{Frame, OpCode, Payload, Role, WebSocket};
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tungstenite::Message;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::WebSocketConfig;

use crate::certificate::Certificate;
use crate::common::pomelo::Conversation;
use crate::common::report;

/// Serves each connection by a task, all on this thread.
fn by_tasks<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    listener.set_nonblocking(true).expect("a socket");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    runtime.expect("a runtime").block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            stream.set_nodelay(true).ok();
            tokio::spawn(serve(stream));
        }
    });
}

/// Over TCP.
pub(crate) fn tokio(listener: TcpListener) {
    by_tasks(listener, converse);
}

/// Over TLS.
pub(crate) fn tokio_tls(listener: TcpListener, certificate: &Certificate) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().expect("the provider has both");
    let (chain, key) = certificate.read().expect("it was just made");
    let config = config.with_no_client_auth().with_single_cert(chain, key);
    let acceptor = TlsAcceptor::from(Arc::new(config.expect("the key is the certificate's")));
    by_tasks(listener, move |stream| {
        let accept = acceptor.accept(stream);
        async move { converse(accept.await?).await }
    });
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let (mut conversation, mut out) = (Conversation::default(), Vec::new());
    let mut input = vec![0; 16 * 1024];
    while let len @ 1.. = stream.read(&mut input).await? {
        conversation.handle(&input[..len], &mut out);
        stream.write_all(&out).await?;
        stream.flush().await?;
        out.clear();
    }
    Ok(())
}

/// Over WebSocket, by tokio-tungstenite. Answers to what was received together are sent together.
/// Its read buffer is allocated anew for each message, so one of 128 KiB, its default, would take
/// most of the time.
pub(crate) fn tungstenite(listener: TcpListener) {
    by_tasks(listener, |stream| async move {
        let other = io::Error::other::<tungstenite::Error>;
        let config = WebSocketConfig::default().read_buffer_size(4 * 1024);
        let accepted = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await;
        let mut socket = accepted.map_err(other)?;
        let mut conversation = Conversation::default();
        loop {
            let next = match futures_lite::future::poll_once(socket.next()).await {
                Some(next) => next,
                None => {
                    socket.flush().await.map_err(other)?;
                    socket.next().await
                }
            };
            match next.transpose().map_err(other)? {
                Some(Message::Binary(input)) => {
                    let mut out = Vec::with_capacity(input.len());
                    conversation.handle(&input, &mut out);
                    socket.feed(Message::binary(out)).await.map_err(other)?;
                }
                Some(Message::Close(_)) | None => return Ok(()),
                Some(_) => {}
            }
        }
    });
}

/// Over WebSocket, by fastwebsockets. It sends each frame by itself, so its stream gathers them.
pub(crate) fn fastwebsockets(listener: TcpListener) {
    by_tasks(listener, |mut stream| async move {
        upgrade(&mut stream).await?;
        let gathering = Gathering { stream, out: Vec::new() };
        let mut socket = WebSocket::after_handshake(gathering, Role::Server);
        let (mut conversation, mut out) = (Conversation::default(), Vec::new());
        loop {
            let frame = socket.read_frame().await.map_err(io::Error::other)?;
            match frame.opcode {
                OpCode::Binary => {
                    conversation.handle(&frame.payload, &mut out);
                    let answer = Frame::binary(Payload::Borrowed(&out));
                    socket.write_frame(answer).await.map_err(io::Error::other)?;
                    out.clear();
                }
                OpCode::Close => return Ok(()),
                _ => {}
            }
        }
    });
}

/// Reads the request to speak WebSocket, and agrees.
async fn upgrade(stream: &mut TcpStream) -> io::Result<()> {
    const KEY: &str = "Sec-WebSocket-Key: ";
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let key = head.lines().find_map(|line| line.strip_prefix(KEY)).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
    stream.write_all(answer.as_bytes()).await
}

/// A stream that sends what was written once more is to be read.
struct Gathering {
    stream: TcpStream,
    out: Vec<u8>,
}

impl Gathering {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))?;
            self.out.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Gathering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Gathering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

const BUN_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/end_to_end/bun.js");

/// The program that the environment names as `BUN`, that npm has installed into the folder of build
/// results, or that the path has.
fn bun_program() -> PathBuf {
    let installed = Path::new(&report::target()).join("bun/node_modules/.bin/bun");
    match std::env::var_os("BUN") {
        Some(path) => path.into(),
        None if installed.exists() => installed,
        None => "bun".into(),
    }
}

/// The reason why Bun can't be a server here, with advice.
pub(crate) fn bun_obstacle() -> Option<String> {
    let program = bun_program();
    let mut command = Command::new(&program);
    let status = command.arg("--version").stdout(Stdio::null()).status();
    let why = match status {
        Ok(status) if status.success() => return None,
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    Some(format!(
        "`{} --version`: {why}; `benches/bun` installs it, and the variable BUN names another",
        program.display()
    ))
}

/// Becomes Bun, which serves WebSocket, inside TLS if there is a certificate.
pub(crate) fn bun(certificate: Option<&Certificate>) -> ExitCode {
    let mut command = Command::new(bun_program());
    command.arg(BUN_SCRIPT);
    if let Some(certificate) = certificate {
        command.args([certificate.chain_path(), certificate.key_path()]);
    }
    eprintln!("bun does not start: {}", command.exec());
    ExitCode::FAILURE
}

//! From the addresses of NATS's servers to a connection that one of them has let in.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::link::Link;
use super::stream::Stream;
use crate::files::{SECRET_BYTES_MAX, read_text_file};
use crate::pitaya::nats::{Frame, NatsAddress, NatsLogin, ServerInfo, connect, decode};
use crate::pitaya::{ClusterTls, PitayaCluster};

/// The addresses, and what it takes to be let in there.
#[derive(Clone)]
pub(super) struct Dialer {
    configured: Vec<NatsAddress>,
    /// Those that a server has told of.
    discovered: Vec<NatsAddress>,
    login: Option<NatsLogin>,
    tls: Option<ClusterTls>,
    /// The first one to try, counted over all.
    first: usize,
    /// Rounds that have led to no connection which lasted.
    rounds: u32,
}

/// The time in which a server has to let one in, and a name server to answer; Pitaya's own.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The waits between rounds over all addresses: so many of the first length, as an answer to what
/// was sent is lost if its server is back at NATS before this one; then twice as long each time,
/// up to the greatest.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRIES_OF_FIRST: u32 = 60;
const RETRY_MAX: Duration = Duration::from_secs(1);
/// A connection that has lasted so long was a good one: the next is tried for at once.
const LASTING: Duration = Duration::from_secs(1);
/// Servers that a server may tell of; more are left out.
const DISCOVERED_MAX: usize = 64;

impl Dialer {
    /// A dialer of a cluster that has been checked, which begins with one of its servers by chance.
    pub(super) fn new(cluster: &PitayaCluster, random: u64) -> Self {
        let configured: Vec<_> =
            cluster.nats.iter().filter_map(|url| NatsAddress::parse(url)).collect();
        let first = (random % configured.len().max(1) as u64) as usize;
        Self {
            configured,
            discovered: Vec::new(),
            login: cluster.nats_login.clone(),
            tls: cluster.nats_tls.clone(),
            first,
            rounds: 0,
        }
    }

    /// Takes over what a server tells of its cluster.
    pub(super) fn handle_info(&mut self, info: &ServerInfo) {
        let known = |address: &NatsAddress| {
            let is_it = |it: &NatsAddress| (it.port, &*it.host) == (address.port, &*address.host);
            self.configured.iter().any(is_it)
        };
        let told = info.connect_urls.iter().filter_map(|url| NatsAddress::parse(url));
        self.discovered = told.filter(|told| !known(told)).take(DISCOVERED_MAX).collect();
    }

    /// A connection has ended that there was since `lasted` ago.
    pub(super) fn handle_end(&mut self, lasted: Duration) {
        self.rounds = if lasted >= LASTING { 0 } else { self.rounds.max(1) };
        // Another server may be better.
        self.first = self.first.wrapping_add(1);
    }

    /// Connects, however long that takes. Gives itself back, to be used again.
    pub(super) async fn connect(mut self) -> (Self, Link) {
        loop {
            if let Some(wait) = self.wait() {
                tokio::time::sleep(wait).await;
            }
            self.rounds = self.rounds.saturating_add(1);
            let len = self.configured.len() + self.discovered.len();
            for index in (0..len).map(|index| self.first.wrapping_add(index) % len) {
                let all = self.configured.iter().chain(&self.discovered);
                let Some(address) = all.clone().nth(index) else { continue };
                match self.try_server(address).await {
                    Ok(link) => {
                        self.first = index;
                        return (self, link);
                    }
                    Err(error) => crate::log::seldom!(
                        warn,
                        host = address.host,
                        port = address.port,
                        %error,
                        "no connection to NATS"
                    ),
                }
            }
        }
    }

    fn wait(&self) -> Option<Duration> {
        let retries = self.rounds.checked_sub(1)?;
        let doublings = retries.saturating_sub(RETRIES_OF_FIRST).min(16);
        Some(RETRY_FIRST.saturating_mul(1 << doublings).min(RETRY_MAX))
    }

    /// Tries all addresses of a name, which is looked up each time.
    async fn try_server(&self, address: &NatsAddress) -> io::Result<Link> {
        let found = timeout(CONNECT_TIMEOUT, lookup_host((&*address.host, address.port))).await;
        let found: Vec<SocketAddr> = found.map_err(|_| no_answer("a name server"))??.collect();
        let mut last = io::Error::other("the name has no address");
        for place in found {
            match timeout(CONNECT_TIMEOUT, self.enter(address, place)).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(error)) => last = error,
                Err(_) => last = no_answer("the server"),
            }
        }
        Err(last)
    }

    /// Makes a connection, and shows the server who this is.
    async fn enter(&self, address: &NatsAddress, place: SocketAddr) -> io::Result<Link> {
        let stream = TcpStream::connect(place).await?;
        stream.set_nodelay(true)?;
        let mut stream = Stream::Plain(stream);
        let mut input = BytesMut::new();
        let Frame::Info(info) = read_frame(&mut stream, &mut input).await? else {
            return Err(io::Error::other("it does not begin like a NATS server"));
        };
        let mut info = ServerInfo::parse(&info)?;
        let has_tls = info.tls_required || address.has_tls || self.tls.is_some();
        if has_tls {
            // Whatever stands behind the first line would be believed to be encrypted.
            if !input.is_empty() {
                return Err(io::Error::other("it sends more before TLS than it should"));
            }
            stream = self.encrypt(stream, address).await?;
        }
        let login = self.login(address).await?;
        let line = connect(login.as_ref(), info.nonce.as_deref(), has_tls);
        let mut lines = line.map_err(io::Error::other)?;
        lines.extend(b"PING\r\n");
        stream.write_all(&lines).await?;
        stream.flush().await?;
        loop {
            match read_frame(&mut stream, &mut input).await? {
                Frame::Pong => return Ok(Link::new(stream, info, input)),
                Frame::Error(words) => {
                    return Err(io::Error::other(format!("the server says: {words}")));
                }
                Frame::Info(again) => info = ServerInfo::parse(&again)?,
                Frame::Ping => stream.write_all(b"PONG\r\n").await?,
                Frame::Ok | Frame::Message(_) => {}
            }
        }
    }

    async fn encrypt(&self, stream: Stream, address: &NatsAddress) -> io::Result<Stream> {
        let Stream::Plain(stream) = stream else { return Ok(stream) };
        // Read anew, so that a certificate that was renewed is used.
        let config = self.tls.clone().unwrap_or_default().client_config();
        let config = config.map_err(io::Error::other)?;
        let name = ServerName::try_from(address.host.clone()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        Ok(Stream::Tls(Box::new(stream)))
    }

    /// The login that is configured, or the one in an address.
    async fn login(&self, address: &NatsAddress) -> io::Result<Option<NatsLogin>> {
        if let Some(NatsLogin::CredentialsFile(path)) = &self.login {
            let path = path.clone();
            let read = move || read_text_file(path, SECRET_BYTES_MAX);
            // The file system may take its time.
            let text = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?;
            return text.map(NatsLogin::Credentials).map(Some);
        }
        if let Some(login) = &self.login {
            return Ok(Some(login.clone()));
        }
        // Servers that were told of take the same one.
        let of_any = || self.configured.iter().find_map(|address| address.login.clone());
        Ok(address.login.clone().or_else(of_any).map(|(user, password)| match password {
            Some(password) => NatsLogin::User { user, password },
            None => NatsLogin::Token(user),
        }))
    }
}

fn no_answer(whose: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{whose} does not answer"))
}

/// Reads the next frame.
async fn read_frame(stream: &mut Stream, input: &mut BytesMut) -> io::Result<Frame> {
    loop {
        let frame = decode(input, ServerInfo::default().max_payload);
        if let Some(frame) = frame.map_err(io::Error::other)? {
            return Ok(frame);
        }
        if stream.read_buf(input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

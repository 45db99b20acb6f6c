//! TLS and WSS, with certificates made for each test in a folder of its own, and clients of rustls.
//!
//! Proved: what works over TCP works the same in TLS, however its records are cut; clients resume
//! by tickets on any shard; certificates change while connections stay; whoever is slow, talks
//! nonsense or changes a record is closed, and nobody else notices.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned, version};
use shaddock::wire::message;
use shaddock::wire::package::{self, PackageType, Status};
use shaddock::{
    Builder, CertificateFault, Drain, Engine, Limits, Listener, Reply, Request, Session, Shards,
    Tls, TlsError,
};
use support::folder::Folder;
use support::tls::client_config_of;
use support::{Client, PATIENCE, ack, eventually, handshake, request};

const ECHO: &str = "connector.entryHandler.echo";
const WHERE: &str = "connector.entryHandler.where";

/// A certificate and its key in files, gone with it.
struct Files {
    folder: Folder,
    der: CertificateDer<'static>,
}

impl Files {
    fn new() -> Self {
        let mut files = Self { folder: Folder::create(), der: CertificateDer::from(Vec::new()) };
        files.renew();
        files
    }

    fn certificate(&self) -> PathBuf {
        self.folder.join("certificate.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.join("key.pem")
    }

    /// Puts another certificate in place.
    fn renew(&mut self) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(self.certificate(), made.cert.pem()).unwrap();
        std::fs::write(self.key(), made.signing_key.serialize_pem()).unwrap();
        self.der = made.cert.der().clone();
    }

    fn tls(&self) -> Tls {
        Tls::from_files(self.certificate(), self.key()).unwrap()
    }

    /// A client that trusts the certificate now in place.
    fn client(&self) -> Arc<ClientConfig> {
        self.client_of(&version::TLS13)
    }

    fn client_of(&self, version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
        client_config_of(&self.der, &[version])
    }
}

fn builder(files: &Files) -> Builder {
    Engine::builder()
        .listen(Listener::new("127.0.0.1:0").tls(files.tls()))
        .shards(Shards::Count(2))
        .handler(ECHO, |request: &Request<'_>, _: &mut Session| Reply::borrowed(request.body()))
        .handler(WHERE, |_: &Request<'_>, session: &mut Session| {
            Reply::json(&session.peer().to_string())
        })
        .handler("connector.entryHandler.kick", |_: &Request<'_>, session: &mut Session| {
            session.kick(Some("bye"));
            Reply::empty()
        })
}

fn start(files: &Files) -> Engine {
    builder(files).start().unwrap()
}

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> TlsStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream)
}

/// One package from the server, by its type and body.
fn read_package(stream: &mut impl Read) -> (PackageType, Vec<u8>) {
    let mut bytes = vec![0; package::HEADER_BYTES];
    stream.read_exact(&mut bytes).unwrap();
    let len = usize::from(bytes[1]) << 16 | usize::from(bytes[2]) << 8 | usize::from(bytes[3]);
    bytes.resize(package::HEADER_BYTES + len, 0);
    stream.read_exact(&mut bytes[package::HEADER_BYTES..]).unwrap();
    match package::decode(&bytes, package::BODY_BYTES_MAX).unwrap() {
        Status::Complete { value, .. } => (value.kind, value.body.to_vec()),
        Status::Partial { .. } => panic!("the package is whole"),
    }
}

fn shake_hands(stream: &mut (impl Read + Write)) {
    stream.write_all(&handshake()).unwrap();
    assert_eq!(read_package(stream).0, PackageType::Handshake);
    stream.write_all(&ack()).unwrap();
}

fn ready(address: SocketAddr, config: &Arc<ClientConfig>) -> TlsStream {
    let mut stream = connect(address, config);
    shake_hands(&mut stream);
    stream
}

fn answer(stream: &mut impl Read) -> (u32, String) {
    let (kind, body) = read_package(stream);
    assert_eq!(kind, PackageType::Data);
    let message = message::decode(&body).unwrap();
    (message.id, String::from_utf8(message.body.to_vec()).unwrap())
}

fn ask(stream: &mut (impl Read + Write), id: u32, route: &str, body: &str) -> String {
    stream.write_all(&request(id, route, body)).unwrap();
    let (answered, body) = answer(stream);
    assert_eq!(answered, id);
    body
}

#[test]
fn tcp_works_inside_both_versions() {
    let files = Files::new();
    let engine = start(&files);
    for version in [&version::TLS12, &version::TLS13] {
        let mut stream = ready(engine.local_addr(), &files.client_of(version));
        assert_eq!(ask(&mut stream, 1, ECHO, "{\"a\":1}"), "{\"a\":1}");
        let own = format!("\"{}\"", stream.sock.local_addr().unwrap());
        assert_eq!(ask(&mut stream, 2, WHERE, "{}"), own);
        // More than a record, a receive buffer and a small outbox hold.
        let large = format!("\"{}\"", "x".repeat(300_000));
        assert_eq!(ask(&mut stream, 3, ECHO, &large), large);
    }
    let counters = engine.shutdown(Drain::now()).counters;
    assert_eq!((counters.tls_handshakes, counters.bad_tls), (2, 0));
}

#[test]
fn many_requests_share_their_records() {
    let files = Files::new();
    let engine = start(&files);
    let mut stream = ready(engine.local_addr(), &files.client());
    let requests: Vec<u8> = (1..=500).flat_map(|id| request(id, ECHO, "{}")).collect();
    stream.write_all(&requests).unwrap();
    for id in 1..=500 {
        assert_eq!(answer(&mut stream), (id, "{}".to_owned()));
    }
}

#[test]
fn records_may_be_cut_anywhere_and_come_many_at_once() {
    let files = Files::new();
    let engine = start(&files);
    // The handshake itself, byte by byte.
    let mut stream = connect(engine.local_addr(), &files.client());
    while stream.conn.is_handshaking() {
        let mut bytes = Vec::new();
        while stream.conn.wants_write() {
            stream.conn.write_tls(&mut bytes).unwrap();
        }
        for byte in &bytes {
            stream.sock.write_all(std::slice::from_ref(byte)).unwrap();
        }
        if stream.conn.is_handshaking() {
            stream.conn.read_tls(&mut stream.sock).unwrap();
            stream.conn.process_new_packets().unwrap();
        }
    }
    shake_hands(&mut stream);
    stream.flush().unwrap();
    let mut cut = 1;
    loop {
        let mut sealed = Vec::new();
        for id in 1..=3 {
            stream.conn.writer().write_all(&request(id, ECHO, "{}")).unwrap();
            stream.conn.write_tls(&mut sealed).unwrap();
        }
        if cut >= sealed.len() {
            break;
        }
        stream.sock.write_all(&sealed[..cut]).unwrap();
        if cut % 8 == 0 {
            // Long enough for the server to see the pieces as such, mostly.
            std::thread::sleep(Duration::from_millis(1));
        }
        stream.sock.write_all(&sealed[cut..]).unwrap();
        for id in 1..=3 {
            assert_eq!(answer(&mut stream).0, id, "cut at {cut}");
        }
        cut += 1;
    }
    assert!(cut > 100);
}

#[test]
fn websocket_works_inside() {
    let files = Files::new();
    let engine = start(&files);
    let stream = connect(engine.local_addr(), &files.client());
    let (mut socket, _) = tungstenite::client("wss://localhost/", stream).unwrap();
    for package in [handshake(), ack(), request(7, ECHO, "{\"a\":1}")] {
        socket.send(package.into()).unwrap();
    }
    let response = loop {
        let frame = socket.read().unwrap().into_data();
        if frame[0] == PackageType::Data as u8 {
            break frame;
        }
    };
    let message = message::decode(&response[package::HEADER_BYTES..]).unwrap();
    assert_eq!((message.id, message.body), (7, &b"{\"a\":1}"[..]));
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
    eventually("the connection is closed", || engine.handle().counters().connections_closed == 1);
    assert_eq!(engine.handle().counters().closed_by_peer, 1);
}

#[test]
fn the_end_is_told_before_the_socket_closes() {
    let files = Files::new();
    let engine = start(&files);
    for version in [&version::TLS12, &version::TLS13] {
        let mut stream = ready(engine.local_addr(), &files.client_of(version));
        stream.write_all(&request(1, "connector.entryHandler.kick", "{}")).unwrap();
        let mut packages = Vec::new();
        // Without a `close_notify` this is an error: the end might be an attacker's.
        stream.read_to_end(&mut packages).unwrap();
        assert!(packages.ends_with(br#"{"reason":"bye"}"#));
    }
    let mut stream = ready(engine.local_addr(), &files.client());
    assert_eq!(ask(&mut stream, 1, ECHO, "{}"), "{}");
    let stopped = std::thread::spawn(|| engine.shutdown(Drain::within(PATIENCE)));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "a stop is no kick");
    drop(stream);
    assert_eq!(stopped.join().unwrap().counters.bad_tls, 0);
}

#[test]
fn a_client_that_says_its_end_is_closed() {
    let files = Files::new();
    let engine = start(&files);
    let mut stream = ready(engine.local_addr(), &files.client());
    assert_eq!(ask(&mut stream, 1, ECHO, "{}"), "{}");
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    eventually("the connection is closed", || engine.handle().counters().connections_closed == 1);
    let counters = engine.handle().counters();
    assert_eq!((counters.closed_by_peer, counters.bad_tls), (1, 0));
}

#[test]
fn a_ticket_makes_the_next_handshake_short_on_any_shard() {
    let files = Files::new();
    let engine = start(&files);
    for version in [&version::TLS12, &version::TLS13] {
        let config = files.client_of(version);
        for round in 0..8 {
            let mut stream = ready(engine.local_addr(), &config);
            assert_eq!(ask(&mut stream, 1, ECHO, "{}"), "{}");
            let is_resumed = stream.conn.handshake_kind() == Some(HandshakeKind::Resumed);
            assert_eq!(is_resumed, round > 0, "{version:?}, round {round}");
        }
    }
    let counters = engine.shutdown(Drain::now()).counters;
    assert_eq!((counters.tls_handshakes, counters.tls_resumptions), (16, 14));
}

#[test]
fn certificates_change_for_new_connections_only() {
    let mut files = Files::new();
    let engine = start(&files);
    let handle = engine.handle();
    let old = files.client();
    let mut first = ready(engine.local_addr(), &old);

    files.renew();
    let new = files.client();
    assert!(refuses_certificate(engine.local_addr(), &new), "not read before it is asked for");
    handle.reload_certificates().unwrap();
    // A shard has read its mail once it has reported.
    handle.statistics().unwrap();
    for _ in 0..4 {
        let mut stream = ready(engine.local_addr(), &new);
        assert_eq!(ask(&mut stream, 1, ECHO, "{}"), "{}");
    }
    assert_eq!(ask(&mut first, 1, ECHO, "{}"), "{}");
    // A ticket of before is still good.
    let again = ready(engine.local_addr(), &old);
    assert_eq!(again.conn.handshake_kind(), Some(HandshakeKind::Resumed));

    std::fs::write(files.key(), "no key").unwrap();
    assert!(matches!(handle.reload_certificates(), Err(TlsError::File { .. })));
    let mut stream = ready(engine.local_addr(), &new);
    assert_eq!(ask(&mut stream, 1, ECHO, "{}"), "{}");
    drop(engine);
    files.renew();
    assert!(matches!(handle.reload_certificates(), Err(TlsError::Engine(_))));
}

fn refuses_certificate(address: SocketAddr, config: &Arc<ClientConfig>) -> bool {
    let mut stream = connect(address, config);
    let error = stream.write_all(&handshake()).and_then(|()| stream.read(&mut [0; 1])).err();
    error.is_some_and(|error| error.kind() == ErrorKind::InvalidData)
}

#[test]
fn a_client_that_stalls_in_the_handshake_is_closed() {
    let files = Files::new();
    let limits = Limits { handshake_timeout: Duration::from_millis(300), ..Limits::default() };
    let engine = builder(&files).limits(limits).start().unwrap();
    let mut hello = Vec::new();
    connect(engine.local_addr(), &files.client()).conn.write_tls(&mut hello).unwrap();
    for sent in [0, 1, hello.len() / 2, hello.len()] {
        let mut client = Client::connect(engine.local_addr());
        client.send(&hello[..sent]);
        let mut rest = Vec::new();
        let ended = client.stream.read_to_end(&mut rest);
        assert!(ended.is_ok() || ended.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
        assert_eq!(rest.is_empty(), sent < hello.len(), "{sent}");
    }
    // One that has shaken hands in TLS but not in Pomelo.
    let mut stream = connect(engine.local_addr(), &files.client());
    stream.flush().unwrap();
    stream.read_to_end(&mut Vec::new()).ok();
    eventually("all are counted", || engine.handle().counters().closed_handshake_timeout >= 5);
}

#[test]
fn nonsense_is_answered_by_an_alert_and_hurts_nobody() {
    let files = Files::new();
    let engine = start(&files);
    let mut witness = ready(engine.local_addr(), &files.client());
    let garbage = [
        handshake(),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        vec![0x16, 3, 1, 0xff, 0xff, 0, 0],
        vec![0xff; 100_000],
    ];
    for bytes in &garbage {
        let mut client = Client::connect(engine.local_addr());
        client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        client.stream.write_all(bytes).ok();
        let mut rest = Vec::new();
        let ended = client.stream.read_to_end(&mut rest);
        let was_reset = ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
        assert!(was_reset || rest.first() == Some(&0x15), "{rest:?}");
    }
    assert_eq!(ask(&mut witness, 1, ECHO, "{}"), "{}");
    let counters = engine.shutdown(Drain::now()).counters;
    assert_eq!(counters.bad_tls, garbage.len() as u64);
}

#[test]
fn a_changed_record_ends_the_connection_behind_what_came_before() {
    let files = Files::new();
    let engine = start(&files);
    let mut stream = ready(engine.local_addr(), &files.client());
    assert_eq!(ask(&mut stream, 1, ECHO, "{}"), "{}");
    let mut sealed = Vec::new();
    stream.conn.writer().write_all(&request(2, ECHO, "{}")).unwrap();
    stream.conn.write_tls(&mut sealed).unwrap();
    *sealed.last_mut().unwrap() ^= 1;
    stream.sock.write_all(&sealed).unwrap();
    let error = stream.read(&mut [0; 16]).unwrap_err();
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    eventually("the connection is closed", || engine.handle().counters().connections_closed == 1);
    assert_eq!(engine.handle().counters().bad_tls, 1);
}

#[test]
fn a_proxy_speaks_before_tls() {
    let files = Files::new();
    let listener = Listener::new("127.0.0.1:0")
        .tls(files.tls())
        .proxy_protocol()
        .trusted_proxies(["127.0.0.0/8".parse().unwrap()]);
    // The second listener has the same certificate, and no proxy.
    let plain = Listener::new("127.0.0.1:0").tls(files.tls());
    let engine = Engine::builder()
        .listen(listener)
        .listen(plain)
        .listen("127.0.0.1:0")
        .shards(Shards::Count(1))
        .handler(WHERE, |_: &Request<'_>, session: &mut Session| {
            Reply::json(&session.peer().to_string())
        })
        .start()
        .unwrap();
    let [proxied, tls, tcp] = *engine.local_addrs() else { panic!("three listeners") };
    // In one segment with the hello, and apart.
    for together in [true, false] {
        let mut stream = connect(proxied, &files.client());
        let mut first = b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 3010\r\n".to_vec();
        if together {
            stream.conn.write_tls(&mut first).unwrap();
        }
        stream.sock.write_all(&first).unwrap();
        shake_hands(&mut stream);
        assert_eq!(ask(&mut stream, 1, WHERE, "{}"), "\"203.0.113.7:56324\"");
    }
    let mut stream = ready(tls, &files.client());
    assert!(ask(&mut stream, 1, WHERE, "{}").starts_with("\"127.0.0.1:"));
    let mut client = Client::ready(tcp);
    assert!(client.ask(1, WHERE, "{}").starts_with("\"127.0.0.1:"));
}

#[test]
fn files_that_are_wrong_are_named() {
    let (files, other) = (Files::new(), Files::new());
    let missing = files.folder.join("missing.pem");
    for (certificate, key, named) in [
        (missing.clone(), files.key(), missing.clone()),
        (files.certificate(), missing.clone(), missing),
        (files.key(), files.key(), files.key()),
        (files.certificate(), files.certificate(), files.certificate()),
        (files.certificate(), other.key(), files.certificate()),
    ] {
        let error = Tls::from_files(certificate, key).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&*named.to_string_lossy()), "{text}");
    }
}

/// What OpenSSL makes of these words; none where there is no `openssl`.
fn openssl(folder: &std::path::Path, words: &str) -> Option<()> {
    let made =
        std::process::Command::new("openssl").current_dir(folder).args(words.split(' ')).output();
    let Ok(output) = made else {
        println!("skipped: there is no openssl");
        return None;
    };
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

/// Certificates and keys as OpenSSL 3.0 writes them, with options as they stand in old recipes.
#[test]
fn a_certificate_that_can_not_be_used_is_told_with_what_to_do() {
    let files = Files::new();
    let folder = files.folder.path();
    let request = "req -x509 -nodes -days 9 -subj /CN=localhost -keyout k.pem -out c.pem";
    let fault = || match Tls::from_files(folder.join("c.pem"), folder.join("k.pem")) {
        Err(TlsError::Unfit { fault, path }) => {
            assert!(path.ends_with("c.pem") || path.ends_with("k.pem"));
            fault
        }
        other => panic!("{other:?}"),
    };
    let Some(()) = openssl(folder, &format!("{request} -newkey rsa:1024")) else { return };
    assert_eq!(fault(), CertificateFault::RsaBits(1024));
    openssl(folder, &format!("{request} -newkey ec -pkeyopt ec_paramgen_curve:P-521"));
    assert_eq!(fault(), CertificateFault::Curve);
    // Without a file of extensions `x509` makes version 1.
    openssl(
        folder,
        "req -new -nodes -subj /CN=localhost -newkey rsa:2048 -keyout k.pem -out r.pem",
    );
    openssl(folder, "x509 -req -in r.pem -signkey k.pem -days 9 -out c.pem");
    let text = std::fs::read_to_string(folder.join("c.pem")).unwrap();
    let version = openssl_version_of(folder);
    match version {
        1 => assert_eq!(fault(), CertificateFault::Version(1)),
        _ => assert!(Tls::from_files(folder.join("c.pem"), folder.join("k.pem")).is_ok(), "{text}"),
    }

    openssl(folder, &format!("{request} -newkey rsa:2048"));
    let own = std::fs::read_to_string(folder.join("c.pem")).unwrap();
    let other = std::fs::read_to_string(files.certificate()).unwrap();
    std::fs::write(folder.join("c.pem"), other.clone() + &own).unwrap();
    assert_eq!(fault(), CertificateFault::NotFirst(2));
    std::fs::write(folder.join("c.pem"), own.clone() + &other).unwrap();
    assert!(Tls::from_files(folder.join("c.pem"), folder.join("k.pem")).is_ok());
    std::fs::write(folder.join("c.pem"), other).unwrap();
    assert_eq!(fault(), CertificateFault::OtherKey);

    std::fs::write(folder.join("c.pem"), own).unwrap();
    for words in ["pkcs8 -topk8", "rsa -traditional -aes128"] {
        let words = format!("{words} -in k.pem -out e.pem -passout pass:x");
        openssl(folder, &words);
        std::fs::copy(folder.join("e.pem"), folder.join("k2.pem")).unwrap();
        let read = Tls::from_files(folder.join("c.pem"), folder.join("k2.pem"));
        let Err(TlsError::Unfit { fault, .. }) = read else { panic!("{read:?}") };
        assert_eq!(fault, CertificateFault::EncryptedKey);
        assert!(fault.to_string().contains("openssl pkey"));
    }
}

/// The version of X.509 in `c.pem`.
fn openssl_version_of(folder: &std::path::Path) -> u8 {
    let output = std::process::Command::new("openssl")
        .current_dir(folder)
        .args(["x509", "-in", "c.pem", "-noout", "-text"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split("Version: ").nth(1).and_then(|rest| rest.split(' ').next());
    version.unwrap().parse().unwrap()
}

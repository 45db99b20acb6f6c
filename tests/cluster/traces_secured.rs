//! Spans for a collector that is reached with TLS: one whose authority is trusted gets them with
//! their headers, any other gets nothing.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use shaddock::Traces;
use support::folder::Folder;
use support::{Client, eventually};

use crate::collector::{Collector, Does};
use crate::traces::{ECHO, lost, serve, spans, stop, workers};

/// An authority, whose certificate is in a file, and a collector that it vouches for.
fn secured(folder: &Folder, name: &str) -> ServerConfig {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    folder.write(name, &authority.pem());
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap()
}

#[test]
fn a_collector_with_tls_gets_spans_if_its_authority_is_trusted() {
    let folder = Folder::create();
    let config = Arc::new(secured(&folder, "ca.pem"));
    secured(&folder, "other.pem");
    let mut collector = Collector::start_secured(Does::Take, config);
    let traces =
        || Traces::new().endpoint(collector.endpoint()).sample(1).header("x-key", "s3cret");
    let engine = workers(traces().ca_file(folder.join("ca.pem")));
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(client.ask(1, ECHO, "1"), "1");
    let post = collector.post();
    assert!(post.head.contains("\r\nx-key: s3cret\r\n"), "{}", post.head);
    eventually("it is counted", || spans(&engine).sent == 1);
    stop(engine);

    // Neither another authority is any good, nor are those of the system; both are final.
    for traces in [traces().ca_file(folder.join("other.pem")), traces()] {
        let engine = workers(traces);
        let mut client = Client::ready(engine.local_addr());
        assert_eq!(client.ask(1, ECHO, "1"), "1");
        eventually("it is lost", || lost(&engine, "collector") == 1);
        stop(engine);
    }
    assert!(collector.rest().is_empty());
}

#[test]
fn a_handshake_that_never_ends_costs_spans_and_nothing_else() {
    let collector = Collector::start(Does::Nothing);
    let endpoint = collector.endpoint().replace("http:", "https:");
    let traces = Traces::new().endpoint(endpoint).sample(1).timeout(Duration::from_millis(200));
    let engine = workers(traces.retry_within(Duration::ZERO));
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(client.ask(1, ECHO, "1"), "1");
    eventually("it is lost", || lost(&engine, "collector") == 1);
    assert_eq!(client.ask(2, ECHO, "2"), "2");
    assert_eq!(spans(&engine).sent, 0);
    stop(engine);
}

/// The binary, which is told of the collector by the environment and of its authority by either.
#[test]
fn the_environment_or_the_file_says_whom_to_trust() {
    let folder = Folder::create();
    let config = Arc::new(secured(&folder, "ca.pem"));
    let collector = Collector::start_secured(Does::Take, config);
    let authority = folder.join("ca.pem");
    let own = format!("ca_file = \"{}\"\n", authority.display());
    for (more, variable) in [("", "OTEL_EXPORTER_OTLP_CERTIFICATE"), (&*own, "UNUSED")] {
        let text = format!(
            "[server]\nshards = 1\ndemo = true\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
             [traces]\nenabled = true\nsample = 1\n{more}"
        );
        let file = folder.write("shaddock.toml", &text);
        let (mut child, mut client) = serve(
            Command::new(env!("CARGO_BIN_EXE_shaddock"))
                .args(["serve", "--config"])
                .arg(&file)
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())
                .env(variable, &authority),
        );
        client.ask(1, "chat.chatHandler.nothing", "{}");
        collector.post();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

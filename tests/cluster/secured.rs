//! A cluster whose NATS and etcd want certificates and a login.

use std::path::PathBuf;

use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair as TlsKey};
use shaddock::{ClusterTls, Engine, PitayaCluster};
use support::folder::Folder;
use support::{Client, builder, eventually};

use crate::nats_and_etcd::{Cluster, ECHO, Secrets, wait_until_forwarded};

/// An authority, a certificate for the servers and one for clients, in files.
struct Certificates {
    folder: Folder,
}

impl Certificates {
    fn create() -> Self {
        let folder = Folder::create();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, TlsKey::generate().unwrap()).unwrap();
        std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        for name in ["server", "client"] {
            let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
            let key = TlsKey::generate().unwrap();
            let params = CertificateParams::new(names).unwrap();
            let certificate = params.signed_by(&key, &authority).unwrap();
            std::fs::write(folder.join(&format!("{name}.pem")), certificate.pem()).unwrap();
            std::fs::write(folder.join(&format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// All that a client needs.
    fn tls(&self) -> ClusterTls {
        ClusterTls::new()
            .ca_file(self.path("ca.pem"))
            .certificate_files(self.path("client.pem"), self.path("client.key"))
    }
}

/// Both servers, which want certificates; NATS also lets backends in that show nothing.
fn start() -> Option<(Cluster, Certificates, KeyPair)> {
    let certificates = Certificates::create();
    let key = KeyPair::new_user();
    let secrets = Secrets {
        ca: certificates.path("ca.pem"),
        certificate: certificates.path("server.pem"),
        key: certificates.path("server.key"),
        nkey: key.public_key(),
    };
    Some((Cluster::start_secured(&secrets)?, certificates, key))
}

fn serve(cluster: PitayaCluster) -> Engine {
    builder(1).pitaya(cluster).start().unwrap()
}

#[test]
fn nats_and_etcd_are_joined_by_certificates_and_a_key() {
    let Some((cluster, certificates, key)) = start() else { return };
    let _backend = cluster.backend("room", "room-1");
    let description = cluster
        .secured_description()
        .nats_nkey(key.seed().unwrap())
        .nats_tls(certificates.tls())
        .etcd_tls(certificates.tls());
    let engine = serve(description);
    let mut client = Client::ready(engine.local_addr());
    wait_until_forwarded(&mut client);
    assert_eq!(client.ask(2, ECHO, "\"secret\""), "\"secret\"");
    let ours = cluster.nats_connections().pop().unwrap();
    assert_eq!(ours["authorized_user"], key.public_key());
    assert!(ours["tls_version"].is_string(), "{ours}");
}

#[test]
fn what_is_missing_keeps_one_out() {
    let Some((cluster, certificates, key)) = start() else { return };
    let _backend = cluster.backend("room", "room-1");
    let complete = || cluster.secured_description().etcd_tls(certificates.tls());
    let seed = key.seed().unwrap();
    let of_another = KeyPair::new_user().seed().unwrap();
    let no_certificate = ClusterTls::new().ca_file(certificates.path("ca.pem"));
    for (what, description) in [
        ("another's key", complete().nats_nkey(of_another).nats_tls(certificates.tls())),
        ("no certificate", complete().nats_nkey(&seed).nats_tls(no_certificate)),
        // It trusts whom the system trusts.
        ("an authority unknown here", complete().nats_nkey(&seed).nats_tls(ClusterTls::new())),
    ] {
        let engine = serve(description);
        let mut client = Client::ready(engine.local_addr());
        // It is told of servers, so it has joined etcd; but there is no connection.
        eventually("the server is known", || !cluster.servers("connector").is_empty());
        let answer = client.ask_json(1, ECHO, "1");
        assert_eq!(answer["code"], "PIT-500", "{what}: {answer}");
        assert!(cluster.nats_connections().is_empty(), "{what}");
        drop(engine);
    }
}

/// A certificate that is renewed needs no restart.
#[test]
fn files_are_read_again_for_each_connection() {
    let Some((cluster, certificates, key)) = start() else { return };
    let _backend = cluster.backend("room", "room-1");
    let stranger = TlsKey::generate().unwrap();
    let names = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let (own, own_key) = (certificates.path("own.pem"), certificates.path("own.key"));
    std::fs::write(&own, names.self_signed(&stranger).unwrap().pem()).unwrap();
    std::fs::write(&own_key, stranger.serialize_pem()).unwrap();
    let tls = ClusterTls::new()
        .ca_file(certificates.path("ca.pem"))
        .certificate_files(own.clone(), own_key.clone());
    let description = cluster.secured_description().nats_nkey(key.seed().unwrap());
    let engine = serve(description.nats_tls(tls.clone()).etcd_tls(tls));
    let mut client = Client::ready(engine.local_addr());
    for id in 1..=20 {
        assert_eq!(client.ask_json(id, ECHO, "1")["code"], "PIT-500");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(cluster.servers("connector").is_empty(), "nobody knows the certificate");
    std::fs::copy(certificates.path("client.pem"), own).unwrap();
    std::fs::copy(certificates.path("client.key"), own_key).unwrap();
    wait_until_forwarded(&mut client);
    assert_eq!(cluster.servers("connector").len(), 1);
}

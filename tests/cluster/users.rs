//! The memory that a user of a Pitaya cluster takes, whose pushes and kicks are listened to.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use shaddock::{PitayaCluster, Reply, Uid};
use support::{Client, builder, eventually};

use crate::nats_and_etcd::Cluster;

/// Tells a process of this program that it is to be the connector, and of which cluster.
const CONNECTOR: &str = "SHADDOCK_TEST_USERS_CONNECTOR";
const BIND: &str = "connector.entry.bind";
/// Those of the first round fill what is allocated in steps; the second is measured.
const FIRST: usize = 1_000;
const USERS: usize = 4_000;

/// The connector, when this is its process.
#[test]
fn the_connectors_process() {
    let Ok(words) = std::env::var(CONNECTOR) else { return };
    let (nats, etcd) = words.split_once(' ').unwrap();
    let engine = builder(1)
        .async_handler(BIND, |request, mut session| async move {
            let uid = Uid::try_from(&request.value()).unwrap();
            Reply::json(&session.bind(uid).await.is_ok())
        })
        .pitaya(PitayaCluster::new([nats], [etcd]).server_type("room"))
        .start()
        .unwrap();
    println!("\nlistening {}", engine.local_addr());
    // Until whoever has started it has gone.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

struct Connector(Child);

impl Drop for Connector {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Connector {
    fn start(cluster: &Cluster) -> (Self, SocketAddr) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            // With one thread libtest has no notice for tests that take a minute, which nobody
            // would read here.
            .args(["--exact", "users::the_connectors_process", "--nocapture", "--test-threads=1"])
            .env(CONNECTOR, format!("{} {}", cluster.nats(), cluster.etcd()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told = lines.map(Result::unwrap).find_map(|line| {
            line.strip_prefix("listening ").map(|address| address.parse().unwrap())
        });
        (Self(child), told.expect("an address"))
    }

    fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }
}

/// The same users once without subscriptions, which are made only when NATS is there.
#[test]
fn subscriptions_of_a_user_take_less_than_a_kibibyte() {
    let Some(mut cluster) = Cluster::start() else { return };
    let (connector, address) = Connector::start(&cluster);
    let mut clients: Vec<Client> = (0..FIRST + USERS).map(|_| Client::ready(address)).collect();
    let bind = |clients: &mut [Client], from: usize| {
        for (index, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.ask(1, BIND, &format!("\"user-{}\"", from + index)), "true");
        }
    };
    let (first, rest) = clients.split_at_mut(FIRST);
    bind(first, 0);
    eventually("the first are listened to", || cluster.nats_subscriptions() > 2 * FIRST);
    cluster.stop_nats();
    bind(rest, FIRST);
    let before = connector.resident_bytes();
    cluster.restart_nats();
    eventually("all are listened to", || cluster.nats_subscriptions() > 2 * (FIRST + USERS));
    let per_user = connector.resident_bytes().saturating_sub(before) / USERS;
    println!("{per_user} bytes a user");
    assert!(per_user <= 1024, "{per_user} bytes a user");
}

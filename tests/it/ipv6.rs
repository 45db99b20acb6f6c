//! IPv6: an engine listens on `[::1]` and on `[::]`, where IPv4 clients come as mapped addresses.
//! What the machine has no IPv6 for is skipped, and says so.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use shaddock::{Drain, Engine, HostFilter, Reply, Request, Session, Shards};
use support::Client;

const WHERE: &str = "connector.entryHandler.where";

/// An engine on that address, `None` where the machine has no IPv6.
fn start(address: &str, denied: &[&str]) -> Option<Engine> {
    if let Err(error) = TcpListener::bind("[::1]:0") {
        println!("skipped: this machine has no IPv6 loopback ({error})");
        return None;
    }
    let engine = Engine::builder()
        .listen(address)
        .shards(Shards::Count(2))
        .host_filter(HostFilter::deny(denied).unwrap())
        .handler(WHERE, |_: &Request<'_>, session: &mut Session| {
            Reply::json(&session.peer().to_string())
        })
        .start();
    Some(engine.unwrap())
}

fn at(ip: impl Into<std::net::IpAddr>, engine: &Engine) -> SocketAddr {
    SocketAddr::new(ip.into(), engine.local_addr().port())
}

#[test]
fn clients_of_ipv6_have_their_addresses() {
    let Some(engine) = start("[::1]:0", &[]) else { return };
    assert!(engine.local_addr().is_ipv6());
    for _ in 0..4 {
        let mut client = Client::ready(engine.local_addr());
        let own = client.stream.local_addr().unwrap();
        assert!(own.is_ipv6());
        assert_eq!(client.ask_json(1, WHERE, "{}"), own.to_string());
    }
}

/// The original shows such a client as `::ffff:127.0.0.1`.
#[test]
fn clients_of_ipv4_on_an_ipv6_listener_are_shown_as_such() {
    let Some(engine) = start("[::]:0", &[]) else { return };
    let mut client = Client::ready(at(Ipv4Addr::LOCALHOST, &engine));
    let own = client.stream.local_addr().unwrap();
    assert!(own.is_ipv4());
    assert_eq!(client.ask_json(1, WHERE, "{}"), own.to_string());
    let mut client = Client::ready(at(Ipv6Addr::LOCALHOST, &engine));
    assert!(client.ask_json(1, WHERE, "{}").as_str().unwrap().starts_with("[::1]:"));
}

#[test]
fn rules_of_both_families_hold_on_one_listener() {
    let refused = |denied: &[&str], ip: std::net::IpAddr| {
        let engine = start("[::]:0", denied)?;
        let address = at(ip, &engine);
        let mut client = Client::connect(address);
        client.send(&support::handshake());
        let is_closed = client.next() == support::Event::End;
        assert_eq!(engine.shutdown(Drain::now()).counters.refused_host, u64::from(is_closed));
        Some(is_closed)
    };
    let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    for (rule, ip, expected) in [
        ("::1", v6, true),
        ("::/64", v6, true),
        ("2001:db8::/32", v6, false),
        ("127.0.0.0/8", v4, true),
        ("::ffff:127.0.0.0/104", v4, true),
        ("127.0.0.0/8", v6, false),
        ("::/0", v4, false),
    ] {
        let Some(refused) = refused(&[rule], ip) else { return };
        assert_eq!(refused, expected, "{rule} {ip}");
    }
}

//! The member by itself, in virtual time, with the test in the place of shards and sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::member::{Command, Member};
use super::member_config::MemberConfig;
use super::mqtt::{self, Decoded, Packet};
use super::servers::{Change, Server};
use super::{PeerId, PomeloCluster, PomeloLimits, Router};
use crate::forward::mail::{Forward, ForwardRoute, Mail};
use crate::forward::remote::{Remote, RemoteConfig};
use crate::forward::{Endpoint, Hub, HubLimits, Party, ServerId, WorkerIndex};
use crate::limits::Limits;
use crate::metrics::Counters;
use crate::route::edition::Edition;
use crate::route::table::RouteTable;
use crate::session::{Generation, SessionData, SessionId, ShardIndex, Slot};

const ROUTE: &str = "chat.chatHandler.echo";
const SECOND_US: u64 = 1_000_000;

struct Bench {
    member: Member,
    shard: Endpoint,
    counters: Arc<Counters>,
    now_us: u64,
}

impl Bench {
    fn new(limits: PomeloLimits) -> Self {
        Self::with_router(limits, Router::Default)
    }

    fn with_router(limits: PomeloLimits, router: Router) -> Self {
        let hub = Hub::new(1, 1, HubLimits { lane_len: 64, inbox_len: 64 });
        let routes = Arc::new(RouteTable::default());
        let (counters, engine_limits) = (Arc::<Counters>::default(), Limits::default());
        let remote = RemoteConfig {
            limits: &engine_limits,
            routes: Arc::clone(&routes),
            edition: Arc::new(Edition::bare(None, &routes)),
        };
        let remote = Remote::new(&hub, hub.worker(WorkerIndex(0)), remote);
        let cluster = PomeloCluster::fixed().server_type("chat", router).limits(limits);
        let config = MemberConfig::new(&cluster, &"connector-1".into(), &routes, &counters);
        let member = Member::new(config, &cluster, &[], remote);
        Self { member, shard: Endpoint::new(hub, Party(0), 64), counters, now_us: 0 }
    }

    /// Lets time pass and the member run; what it wants of the sockets.
    fn run(&mut self, passed_us: u64) -> Vec<Command> {
        self.now_us += passed_us;
        self.member.begin_turn(self.now_us);
        self.member.run();
        while self.member.poll_bell().is_some() {}
        std::iter::from_fn(|| self.member.poll_command()).collect()
    }

    fn forward(&mut self, token: u64) {
        self.forward_body(token, "{}");
    }

    fn forward_body(&mut self, token: u64, body: &str) {
        let session = SessionId::new(ShardIndex(0), Slot(0), Generation::FIRST);
        let data = Arc::new(SessionData::new(1, SocketAddr::from((Ipv4Addr::LOCALHOST, 9))));
        let route = ForwardRoute::Inline { len: ROUTE.len() as u8 };
        let bytes = Bytes::copy_from_slice(format!("{ROUTE}{body}").as_bytes());
        let forward = Forward { token, session, data, route, id: 1, bytes };
        self.shard.send(Party(1), Mail::Forward(forward));
        self.shard.flush();
    }

    /// The answers that the shard has got: tokens, and whether they failed.
    fn answers(&mut self) -> Vec<(u64, bool)> {
        let mut answers = Vec::new();
        while let Some(mail) = self.shard.receive(Party(1)) {
            let Mail::Answer { token, reply, .. } = mail else { panic!("no answer") };
            answers.push((token, reply.has_failed()));
        }
        answers
    }

    /// The ids of the calls that are to be sent on a connection.
    fn sent(&mut self, peer: PeerId) -> Vec<u64> {
        let Some(output) = self.member.output(peer) else { return Vec::new() };
        let mut bytes = Vec::new();
        while output.len() > 0 {
            bytes.extend_from_slice(output.unsent());
            output.advance(output.unsent().len());
        }
        let mut ids = Vec::new();
        let mut rest = &bytes[..];
        while let Ok(Decoded::Packet(packet, len)) = mqtt::decode(rest, usize::MAX) {
            if let Packet::Publish { payload, .. } = packet {
                let call: Value = serde_json::from_slice(payload).unwrap();
                ids.push(call["id"].as_u64().unwrap());
            }
            rest = &rest[len..];
        }
        ids
    }

    fn replace(&mut self, servers: &[(&str, u16)]) {
        let servers = servers.iter().map(|(id, port)| server(id, *port)).collect();
        self.member.set_servers(servers);
    }
}

fn server(id: &str, port: u16) -> Server {
    let (server_type, host) = ("chat".to_owned(), "127.0.0.1".to_owned());
    Server { id: ServerId::from(id), server_type, host, port, weight: 1 }
}

/// The one connection that is to be made.
fn connect(commands: &[Command]) -> PeerId {
    let [Command::Connect { peer, .. }] = commands else { panic!("{commands:?}") };
    *peer
}

#[test]
fn calls_wait_for_a_connection_up_to_a_bound() {
    let mut bench = Bench::new(PomeloLimits { queue_len_max: 3, ..PomeloLimits::default() });
    bench.replace(&[("chat-1", 1)]);
    let peer = connect(&bench.run(0));
    (1..=5).for_each(|token| bench.forward(token));
    bench.run(0);
    assert_eq!(bench.answers(), [(4, true), (5, true)], "the bound");
    assert_eq!(bench.counters.snapshot().forward_rejects, 2);
    assert!(bench.sent(peer).is_empty(), "nothing goes out before the connection is there");
    bench.member.handle_open(peer);
    assert_eq!(bench.member.poll_dirty(), Some(peer));
    assert_eq!(bench.sent(peer), [0, 1, 2], "in order");
    bench.forward(6);
    bench.run(0);
    assert_eq!(bench.sent(peer), [3], "one that is open has no such bound");
}

#[test]
fn a_connection_that_can_not_be_made_is_tried_at_longer_and_longer_intervals() {
    let mut bench = Bench::new(PomeloLimits::default());
    bench.replace(&[("chat-1", 1)]);
    let mut peer = connect(&bench.run(0));
    let mut waits_ms = Vec::new();
    for token in 1..=8 {
        bench.forward(token);
        bench.run(0);
        bench.member.handle_closed(peer, "refused");
        bench.forward(100 + token);
        bench.run(0);
        assert_eq!(bench.answers(), [(token, true), (100 + token, true)], "at once");
        let next_us = bench.member.next_deadline_us().unwrap();
        waits_ms.push((next_us - bench.now_us) / 1000);
        assert!(bench.run(next_us - bench.now_us - 1).is_empty());
        peer = connect(&bench.run(1));
    }
    assert_eq!(waits_ms, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    // One that says nothing is given up.
    let commands = bench.run(5 * SECOND_US);
    assert_eq!(commands, [Command::Close(peer)]);
    peer = connect(&bench.run(5 * SECOND_US));
    bench.member.handle_open(peer);
    // After one that was made, the next is tried at once.
    bench.member.handle_closed(peer, "lost");
    peer = connect(&bench.run(0));
    bench.member.handle_closed(peer, "refused");
    assert_eq!(bench.member.next_deadline_us(), Some(bench.now_us + 100_000));
}

/// A bench with one server that is connected.
fn connected() -> (Bench, PeerId) {
    let mut bench = Bench::new(PomeloLimits::default());
    bench.replace(&[("chat-1", 1)]);
    let peer = connect(&bench.run(0));
    bench.member.handle_open(peer);
    (bench, peer)
}

/// Lets some time pass in which the server answers its pings; whether it is connected still.
fn live(bench: &mut Bench, peer: PeerId, seconds: u64) -> bool {
    for _ in 0..seconds {
        bench.run(SECOND_US);
        bench.member.handle_input(peer, &mqtt::PINGRESP);
    }
    bench.member.output(peer).is_some()
}

#[test]
fn a_server_that_answers_is_kept_for_a_while_though_the_master_has_forgotten_it() {
    let (mut bench, peer) = connected();
    bench.replace(&[]);
    assert!(live(&mut bench, peer, 89), "it may be about to come back");
    assert!(!live(&mut bench, peer, 2));
    let (mut bench, peer) = connected();
    bench.replace(&[]);
    bench.member.apply(Change::Add(server("chat-1", 1)));
    assert!(live(&mut bench, peer, 200), "it has come back");
}

#[test]
fn a_server_that_is_taken_off_the_list_goes_at_once() {
    let (mut bench, peer) = connected();
    bench.forward(1);
    bench.run(0);
    bench.member.apply(Change::Remove(ServerId::from("chat-1")));
    assert_eq!(bench.run(0), [Command::Close(peer)]);
    assert_eq!(bench.answers(), [(1, true)]);
    bench.forward(2);
    bench.run(0);
    assert_eq!(bench.answers(), [(2, true)], "there is no server");
}

#[test]
fn a_server_that_moves_is_called_where_it_is() {
    let mut bench = Bench::new(PomeloLimits::default());
    bench.replace(&[("chat-1", 1)]);
    let peer = connect(&bench.run(0));
    bench.member.handle_open(peer);
    bench.member.apply(Change::Add(server("chat-1", 1)));
    assert!(bench.run(0).is_empty(), "the same place");
    bench.member.apply(Change::Add(server("chat-1", 2)));
    let commands = bench.run(0);
    let [Command::Close(old), Command::Connect { port: 2, .. }] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(*old, peer);
}

#[test]
fn a_caller_that_does_not_read_its_answers_is_cut_off() {
    let mut bench = Bench::new(PomeloLimits { output_bytes_max: 1_000, ..PomeloLimits::default() });
    let caller = bench.member.handle_accept().unwrap();
    let mut call = Vec::new();
    mqtt::encode_publish("rpc", &mut call, |out| {
        out.extend_from_slice(b"{\"id\":1,\"msg\":{\"namespace\":\"x\"}}");
    });
    for _ in 0..20 {
        bench.member.handle_input(caller, &call);
    }
    assert_eq!(bench.run(0), [Command::Close(caller)]);
    assert!(bench.member.output(caller).is_none());
}

#[test]
fn callers_and_servers_are_bounded() {
    let limits = PomeloLimits { callers_max: 1, servers_max: 1, ..PomeloLimits::default() };
    let mut bench = Bench::new(limits);
    let caller = bench.member.handle_accept().unwrap();
    assert!(bench.member.handle_accept().is_none());
    bench.member.handle_closed(caller, "gone");
    assert!(bench.member.handle_accept().is_some());
    bench.replace(&[("chat-1", 1), ("chat-2", 2)]);
    assert_eq!(bench.run(0).len(), 1, "the second is left out");
}

/// The connections that are to be made.
fn connects(commands: &[Command]) -> Vec<PeerId> {
    let peer = |command: &Command| match command {
        Command::Connect { peer, .. } => *peer,
        _ => panic!("{commands:?}"),
    };
    commands.iter().map(peer).collect()
}

#[test]
fn what_waits_for_all_servers_together_is_bounded_in_bytes() {
    const MIB: usize = 1 << 20;
    let limits = PomeloLimits { output_total_bytes_max: 8 * MIB, ..PomeloLimits::default() };
    let mut bench = Bench::with_router(limits, Router::RoundRobin);
    let names: Vec<String> = (0..20).map(|n| format!("chat-{n}")).collect();
    bench.replace(&names.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>());
    // None of them reads.
    let peers = connects(&bench.run(0));
    peers.iter().for_each(|peer| bench.member.handle_open(*peer));
    let body = format!("\"{}\"", "x".repeat(MIB));
    for token in 1..=40 {
        bench.forward_body(token, &body);
        bench.run(1_000);
    }
    let held = |bench: &Bench| peers.iter().map(|peer| bench.member.held_by(*peer)).sum::<usize>();
    assert!((7 * MIB..=8 * MIB).contains(&held(&bench)), "{}", held(&bench));
    assert_eq!(bench.answers().len(), 40 - 7);
    // Small ones are for everybody, and what is sent makes room for large ones.
    bench.forward(41);
    bench.run(1_000);
    assert_eq!(bench.answers(), []);
    peers.iter().for_each(|peer| drop(bench.sent(*peer)));
    bench.forward_body(42, &body);
    bench.run(1_000);
    assert_eq!(bench.answers(), []);
    assert_eq!(bench.counters.snapshot().forward_rejects, 33);
}

#[test]
fn packets_in_part_are_bounded_in_bytes_for_all_connections_together() {
    const MIB: usize = 1 << 20;
    let limits = PomeloLimits { input_total_bytes_max: 8 * MIB, ..PomeloLimits::default() };
    let mut bench = Bench::new(limits);
    // The start of a packet of 16 MiB.
    let mut part = vec![0x30, 0x80, 0x80, 0x80, 0x08];
    part.resize(MIB, b' ');
    let mut left: Vec<PeerId> = (0..20).filter_map(|_| bench.member.handle_accept()).collect();
    for peer in left.clone() {
        bench.member.handle_input(peer, &part);
        bench.run(1_000);
    }
    left.retain(|peer| bench.member.output(*peer).is_some());
    assert_eq!((left.len(), bench.counters.snapshot().cluster_overflows), (8, 12));
    let caller = bench.member.handle_accept().unwrap();
    bench.member.handle_input(caller, &part[..1_000]);
    assert!(bench.member.output(caller).is_some(), "a little is for everybody");
}

#[test]
fn long_lists_are_refused_without_being_kept() {
    let mut bench = Bench::new(PomeloLimits { push_uids_max: 3, ..PomeloLimits::default() });
    let caller = bench.member.handle_accept().unwrap();
    let mut call = |uids: &str| {
        let args = format!("[\"onChat\",1,{uids},{{}},9,9,9,9,9,9,9]");
        let text = format!(
            "{{\"id\":1,\"msg\":{{\"namespace\":\"sys\",\"service\":\"channelRemote\",\
             \"method\":\"pushMessage\",\"args\":{args}}}}}"
        );
        let mut packet = Vec::new();
        mqtt::encode_publish("rpc", &mut packet, |out| out.extend_from_slice(text.as_bytes()));
        bench.member.handle_input(caller, &packet);
        let output = bench.member.output(caller).unwrap();
        let answer = String::from_utf8_lossy(output.unsent()).into_owned();
        output.advance(answer.len());
        answer
    };
    assert!(call("[1,2,3,4]").contains("too many uids"));
    assert!(call("[1,2").contains("bad rpc message") || call("5").contains("uids are no array"));
    assert_eq!(call("[1,2,3]"), "", "that is for the shards to answer");
}

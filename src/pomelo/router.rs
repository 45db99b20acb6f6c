//! Which server of a type gets a message: the routers that Pomelo's RPC client has.

use std::fmt;
use std::sync::Arc;

use md5::{Digest as _, Md5};

use crate::dispatch::chain::guarded;
use crate::forward::{Route, ServerId};
use crate::metrics::Counters;
use crate::route::default_route;
use crate::session::SessionView;

/// A rule that picks the server of a message among those of its type.
///
/// [`Default`](Self::Default) and [`ConsistentHash`](Self::ConsistentHash) keep a session at one
/// server as long as the list of servers stays the same. The other three send each message where
/// they like, past servers that there is no connection to; with more than one server they keep no
/// order between the messages of a session.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Router {
    /// Pomelo's default: by the CRC-32 of the uid; sessions without one go to the first server
    /// (docs/protocol/sessions.md, "Forwarding").
    #[default]
    Default,
    /// One server after the other; `rr` in Pomelo.
    RoundRobin,
    /// One after the other, as often as the `weight` in the server's entry says (1 if there is
    /// none); `wrr` in Pomelo.
    Weighted,
    /// The server that the fewest calls wait for; `la` in Pomelo, which counts the calls ever made
    /// instead.
    LeastActive,
    /// By a hash of the uid, or of the session's number before there is one, so that a server that
    /// comes or goes moves few sessions; `ch` in Pomelo, which hashes the whole call unless it is
    /// told otherwise.
    ConsistentHash,
    /// A function of the game's; see [`Router::custom`].
    Custom(CustomRouter),
}

/// A function that picks a server.
#[derive(Clone)]
pub struct CustomRouter(pub(crate) Route);

impl Router {
    /// Picks by a function of the session and the servers of the type, in the order they became
    /// known. It gives an index among them; `None` answers 500. It runs on the thread that talks to
    /// the cluster, so it must not block.
    ///
    /// ```
    /// use shaddock::{PomeloCluster, Router};
    ///
    /// let router = Router::custom(|session, servers| {
    ///     let name = session.setting("roomServer")?.as_str()?;
    ///     servers.iter().position(|server| server.as_str() == name)
    /// });
    /// let cluster = PomeloCluster::new("127.0.0.1:3005").server_type("room", router);
    /// ```
    pub fn custom(
        pick: impl Fn(&SessionView<'_>, &[ServerId]) -> Option<usize> + Send + Sync + 'static,
    ) -> Self {
        Self::Custom(CustomRouter(Arc::new(pick)))
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "Default",
            Self::RoundRobin => "RoundRobin",
            Self::Weighted => "Weighted",
            Self::LeastActive => "LeastActive",
            Self::ConsistentHash => "ConsistentHash",
            Self::Custom(_) => "Custom",
        })
    }
}

impl fmt::Debug for CustomRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CustomRouter")
    }
}

/// The state of servers that a router may ask for, by the index in the list.
pub(crate) trait Servers {
    /// Calls that wait for its answers.
    fn active(&self, index: usize) -> usize;
    fn is_connected(&self, index: usize) -> bool;
}

/// A router and where it stands.
#[derive(Debug)]
pub(crate) struct Picker {
    router: Router,
    /// The index that was picked last.
    last: usize,
    /// Servers of at least this weight have their turn.
    turn: u32,
    weights: Vec<u32>,
    /// Points of a circle, ascending, with the index that each belongs to.
    circle: Vec<(u64, usize)>,
}

/// Points that a server has on the circle. With 160 the shares of equal servers differ by about a
/// tenth.
const POINTS: u32 = 160;
/// The greatest weight that counts; it bounds how long a round is.
const WEIGHT_MAX: u32 = 1_000;

impl Picker {
    pub(crate) fn new(router: Router) -> Self {
        Self { router, last: usize::MAX, turn: 0, weights: Vec::new(), circle: Vec::new() }
    }

    /// The list has changed: here are the servers' names and weights.
    pub(crate) fn set_servers<'a>(
        &mut self,
        servers: impl Iterator<Item = (&'a ServerId, u32)> + Clone,
    ) {
        self.weights = servers.clone().map(|(_, weight)| weight.min(WEIGHT_MAX)).collect();
        self.circle.clear();
        if matches!(self.router, Router::ConsistentHash) {
            for (index, (server, _)) in servers.enumerate() {
                let points =
                    (0..POINTS).map(|n| (hash(&format!("{}-{n}", server.as_str())), index));
                self.circle.extend(points);
            }
            self.circle.sort_unstable();
        }
    }

    /// The index of the server that a session's message goes to.
    pub(crate) fn pick(
        &mut self,
        session: &SessionView<'_>,
        ids: &[ServerId],
        servers: &impl Servers,
        counters: &Counters,
    ) -> Option<usize> {
        let len = ids.len();
        debug_assert_eq!(len, self.weights.len());
        let index = match &self.router {
            Router::Default => {
                return default_route(session.uid().map_or("", |uid| uid.text()), len);
            }
            Router::Custom(CustomRouter(pick)) => {
                return guarded("Router::custom", counters, || pick(session, ids)).flatten();
            }
            Router::ConsistentHash => return self.on_circle(session),
            Router::RoundRobin => (1..=len)
                .map(|step| self.last.wrapping_add(step) % len)
                .find(|index| servers.is_connected(*index)),
            Router::Weighted => self.weighted(servers),
            Router::LeastActive => (1..=len)
                .map(|step| self.last.wrapping_add(step) % len)
                .filter(|index| servers.is_connected(*index))
                .min_by_key(|index| servers.active(*index)),
        };
        // Where nobody can be reached, one is asked all the same: it may be connecting.
        let index = index.or_else(|| (len > 0).then_some(0))?;
        self.last = index;
        Some(index)
    }

    fn on_circle(&self, session: &SessionView<'_>) -> Option<usize> {
        let at = match session.uid() {
            Some(uid) => hash(uid.text()),
            None => hash(&session.number().to_string()),
        };
        let next = self.circle.partition_point(|(point, _)| *point < at);
        let (_, index) = self.circle.get(next).or_else(|| self.circle.first())?;
        Some(*index)
    }

    /// Rounds in which the heavier servers have their turn more often: first those of the greatest
    /// weight, then those of one less, and so on.
    fn weighted(&mut self, servers: &impl Servers) -> Option<usize> {
        let len = self.weights.len();
        let reachable = |index: usize| self.weights[index] > 0 && servers.is_connected(index);
        let heaviest = (0..len).filter(|p| reachable(*p)).map(|p| self.weights[p]).max()?;
        let (mut index, mut turn) = (self.last, self.turn);
        // Each round has someone of the greatest weight, so that two rounds are enough.
        for _ in 0..2 * len * heaviest as usize + len {
            index = index.wrapping_add(1) % len;
            if index == 0 || turn > heaviest || turn == 0 {
                turn = if turn <= 1 || turn > heaviest { heaviest } else { turn - 1 };
            }
            if reachable(index) && self.weights[index] >= turn {
                self.turn = turn;
                return Some(index);
            }
        }
        None
    }
}

/// The start of an MD5, which spreads names that differ little.
fn hash(text: &str) -> u64 {
    let digest = Md5::digest(text);
    u64::from_be_bytes(digest[..8].try_into().expect("a digest has 16 bytes"))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::session::{Generation, SessionData, SessionId, ShardIndex, Slot, Uid};

    /// Servers by their calls; `None` is out of reach.
    struct Fake(Vec<Option<usize>>);

    impl Servers for Fake {
        fn active(&self, index: usize) -> usize {
            self.0[index].unwrap_or(0)
        }

        fn is_connected(&self, index: usize) -> bool {
            self.0[index].is_some()
        }
    }

    fn ids(len: usize) -> Vec<ServerId> {
        (1..=len).map(|n| ServerId::from(&*format!("chat-{n}"))).collect()
    }

    fn picker(router: Router, ids: &[ServerId], weights: &[u32]) -> Picker {
        let mut picker = Picker::new(router);
        picker.set_servers(ids.iter().zip(weights.iter().copied()));
        picker
    }

    fn pick(picker: &mut Picker, uid: Option<&str>, ids: &[ServerId], fake: &Fake) -> usize {
        let mut data = SessionData::new(1, SocketAddr::from((Ipv4Addr::LOCALHOST, 9)));
        data.uid = uid.map(Uid::from);
        let id = SessionId::new(ShardIndex(0), Slot(0), Generation::FIRST);
        picker.pick(&SessionView { id, data: &data }, ids, fake, &Counters::default()).unwrap()
    }

    #[test]
    fn the_default_is_by_uid_and_goes_nowhere_else() {
        let (ids, fake) = (ids(4), Fake(vec![Some(0), Some(0), Some(0), None]));
        let mut picker = picker(Router::Default, &ids, &[1; 4]);
        assert_eq!(pick(&mut picker, Some("alice"), &ids, &fake), 3);
        assert_eq!(pick(&mut picker, None, &ids, &fake), 0);
    }

    #[test]
    fn round_robin_passes_over_who_is_away() {
        let (ids, fake) = (ids(3), Fake(vec![Some(0), None, Some(0)]));
        let mut picker = picker(Router::RoundRobin, &ids, &[1; 3]);
        let picks: Vec<_> = (0..4).map(|_| pick(&mut picker, None, &ids, &fake)).collect();
        assert_eq!(picks, [0, 2, 0, 2]);
        let nobody = Fake(vec![None; 3]);
        assert_eq!(pick(&mut picker, None, &ids, &nobody), 0);
    }

    #[test]
    fn weights_say_how_often() {
        let (ids, fake) = (ids(4), Fake(vec![Some(0), Some(0), Some(0), None]));
        let mut picker = picker(Router::Weighted, &ids, &[3, 1, 0, 9]);
        let picks: Vec<_> = (0..8).map(|_| pick(&mut picker, None, &ids, &fake)).collect();
        assert_eq!(picks, [0, 0, 0, 1, 0, 0, 0, 1]);
    }

    #[test]
    fn the_least_active_gets_the_next() {
        let ids = ids(3);
        let mut picker = picker(Router::LeastActive, &ids, &[1; 3]);
        let fake = Fake(vec![Some(5), Some(2), None]);
        assert_eq!(pick(&mut picker, None, &ids, &fake), 1);
        let fake = Fake(vec![Some(2), Some(2), Some(2)]);
        let picks: Vec<_> = (0..3).map(|_| pick(&mut picker, None, &ids, &fake)).collect();
        assert_eq!(picks, [2, 0, 1], "equals take turns");
    }

    #[test]
    fn a_server_that_goes_moves_only_its_own_sessions() {
        let four = ids(4);
        let fake = Fake(vec![Some(0); 4]);
        let mut all = picker(Router::ConsistentHash, &four, &[1; 4]);
        let mut fewer = picker(Router::ConsistentHash, &four[..3], &[1; 3]);
        let draws = if cfg!(miri) { 100 } else { 2_000 };
        let mut counts = [0; 4];
        for n in 0..draws {
            let uid = format!("player-{n}");
            let index = pick(&mut all, Some(&uid), &four, &fake);
            counts[index] += 1;
            let now = pick(&mut fewer, Some(&uid), &four[..3], &fake);
            assert!(index == 3 || index == now, "{uid} moved from {index} to {now}");
        }
        let share = draws * 3 / 20..draws * 7 / 20;
        assert!(counts.iter().all(|count| share.contains(count)), "{counts:?}");
    }

    #[test]
    fn before_there_is_a_uid_the_number_of_a_session_has_its_place() {
        let (ids, fake) = (ids(4), Fake(vec![Some(0); 4]));
        let mut picker = picker(Router::ConsistentHash, &ids, &[1; 4]);
        let mut picks = || -> Vec<usize> {
            let pick = |number| {
                let data = SessionData::new(number, SocketAddr::from((Ipv4Addr::LOCALHOST, 9)));
                let id = SessionId::new(ShardIndex(0), Slot(0), Generation::FIRST);
                let view = SessionView { id, data: &data };
                picker.pick(&view, &ids, &fake, &Counters::default()).unwrap()
            };
            (1..=100).map(pick).collect()
        };
        let first = picks();
        assert_eq!(picks(), first, "a session stays where it is");
        assert!((0..4).all(|index| first.contains(&index)), "{first:?}");
    }

    #[test]
    fn a_function_that_panics_picks_nobody() {
        let ids = ids(1);
        let mut picker = picker(Router::custom(|_, _| panic!("in a router")), &ids, &[1]);
        let data = SessionData::new(1, SocketAddr::from((Ipv4Addr::LOCALHOST, 9)));
        let id = SessionId::new(ShardIndex(0), Slot(0), Generation::FIRST);
        let view = SessionView { id, data: &data };
        let counters = Counters::default();
        assert_eq!(picker.pick(&view, &ids, &Fake(vec![Some(0)]), &counters), None);
        assert_eq!(counters.callback_panics.value(), 1);
    }
}

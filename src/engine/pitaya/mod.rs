//! The threads that talk to a Pitaya cluster: NATS and etcd round a [`Member`].
//!
//! The clients of both are tokio's, so each thread runs one of tokio's runtimes, on itself alone.
//! Shards see a party with lanes and a doorbell like any other. The first thread talks to etcd for
//! all of them.

mod etcd;
mod moving;
mod nats;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::Sleep;

use self::etcd::Registrar;
use self::moving::Moving;
use self::nats::Nats;
use super::builder::Builder;
use super::eventfd::Eventfd;
use super::network::{ForwarderContext, NetworkForwarder, NetworkPlace};
use super::threads::Join;
use crate::dispatch::tasks::WakeThread as _;
use crate::error::{EngineOption, StartError};
use crate::forward::remote::{Remote, RemoteConfig};
use crate::limits::Limits;
use crate::metrics::ClusterFigures;
use crate::pitaya::{Change, ETCD, KICK_REASON, Member, MemberConfig, NATS, PitayaCluster, Share};
use crate::session::OnSecondBind;

impl Builder {
    /// Forwards server types to the servers of a Pitaya cluster, which this engine joins as one of
    /// its frontends, over NATS and etcd.
    ///
    /// ```
    /// use shaddock::{Engine, PitayaCluster};
    ///
    /// let cluster = PitayaCluster::new(["nats://10.0.0.2:4222"], ["http://10.0.0.3:2379"]);
    /// let builder = Engine::builder().pitaya(cluster.server_type("room"));
    /// ```
    pub fn pitaya(self, cluster: PitayaCluster) -> Self {
        self.network(PitayaForwarder { cluster })
    }
}

/// The cluster as the embedder describes it.
struct PitayaForwarder {
    cluster: PitayaCluster,
}

impl NetworkForwarder for PitayaForwarder {
    fn option(&self) -> EngineOption {
        EngineOption::Cluster("pitaya.server_type")
    }

    fn server_types(&self) -> Vec<&str> {
        self.cluster.server_types.iter().map(String::as_str).collect()
    }

    fn subscribes_to_logins(&self) -> bool {
        true
    }

    fn check(&self, limits: &Limits) -> Result<(), StartError> {
        check(&self.cluster, limits)
    }

    fn on_second_bind(&self) -> Option<OnSecondBind> {
        Some(match self.cluster.unique_session {
            true => OnSecondBind::KickFirst(KICK_REASON.into()),
            false => OnSecondBind::CloseFirst,
        })
    }

    fn threads(&self, shards: u16) -> u16 {
        self.cluster.threads.clamp(1, shards.max(1))
    }

    /// Pitaya's servers are not told where clients connect.
    fn start(
        self: Box<Self>,
        place: NetworkPlace,
        joins: &mut Vec<Join>,
    ) -> Result<(), StartError> {
        let channels = place.parties.iter().map(|_| mpsc::channel(CHANGES_MAX));
        let (changes, servers): (Vec<_>, Vec<_>) = channels.unzip();
        let mut changes = Some(changes);
        let (count, shards) = (place.parties.len() as u16, place.threads.hub.shards());
        let id = match &self.cluster.server_id {
            Some(id) => id.as_str().into(),
            None => uuid([random(), random()]).into(),
        };
        for (index, (context, servers)) in (0..).zip(place.contexts().zip(servers)) {
            let share = Share { index, count, shards };
            let (id, changes) = (Arc::clone(&id), changes.take());
            let start = Start { cluster: self.cluster.clone(), id, share, servers, changes };
            joins.push(start.spawn(context)?);
        }
        Ok(())
    }
}

/// The longest sleep. It bounds the delay of work that rings no bell.
const SLEEP_MAX: Duration = Duration::from_millis(500);
/// The time in which what is to be told at the end has to be sent.
const STOP_WITHIN: Duration = Duration::from_millis(1_000);
/// The time between two looks at the state of the cluster for its figures.
const SHOW_EVERY_US: u64 = 50_000;
/// Changes of the list of servers that wait to be taken over.
const CHANGES_MAX: usize = 64;

fn check(cluster: &PitayaCluster, limits: &Limits) -> Result<(), StartError> {
    let bad =
        |(option, expected)| StartError::Option { option: EngineOption::Cluster(option), expected };
    cluster.check(limits.forward_timeout).map_err(bad)
}

/// Names of NATS and etcd that are looked up at a time. Others wait: a look-up takes a thread, for
/// as long as name servers are silent.
const LOOKUPS_MAX: usize = 4;

/// All that one of the threads starts with. The description has been checked.
struct Start {
    cluster: PitayaCluster,
    /// The server's id in the cluster.
    id: Arc<str>,
    share: Share,
    servers: mpsc::Receiver<Change>,
    /// The ways to all threads, of the one that tells them of servers.
    changes: Option<Vec<mpsc::Sender<Change>>>,
}

impl Start {
    fn spawn(self, context: ForwarderContext) -> Result<Join, StartError> {
        let failed =
            |error: std::io::Error| StartError::System { what: "the cluster's thread", error };
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime =
            runtime.enable_all().max_blocking_threads(LOOKUPS_MAX).build().map_err(failed)?;
        let name = match self.share.index {
            0 => "shaddock-pitaya".to_owned(),
            index => format!("pitaya-{}", index + 1),
        };
        let spawned = std::thread::Builder::new().name(name).spawn(move || {
            // Unconstrained: tokio would stop a turn half-way for the sake of other tasks, which
            // have theirs between two turns.
            let threads = Arc::clone(&context.threads);
            let run = tokio::task::unconstrained(self.run(context));
            if let Err(error) = runtime.block_on(run) {
                threads.fail(format!("the cluster's thread has failed: {error}"));
            }
            // Whatever waits for the network any longer is not waited for.
            runtime.shutdown_background();
        });
        let handle = spawned.map_err(failed)?;
        Ok(Box::new(move || {
            if handle.join().is_err() {
                tracing::error!("the cluster's thread has panicked");
            }
        }))
    }

    async fn run(self, context: ForwarderContext) -> std::io::Result<()> {
        let Self { cluster, id, share, servers, changes } = self;
        let config = &context.config;
        let random = [random(), random()];
        let member = MemberConfig::new(
            &cluster,
            &config.server_type,
            &id,
            &config.routes,
            &context.counters,
            (random, config.started_unix_ms),
            share,
        );
        let remote = RemoteConfig {
            limits: &config.limits,
            routes: Arc::clone(&config.routes),
            edition: config.edition(),
        };
        let remote = Remote::new(&context.threads.hub, context.me, remote);
        let member = Member::new(member, &cluster, &context.routes, remote);
        let party = context.me.0;
        let figures = match share.is_first() {
            true => {
                let names = cluster.server_types.iter().map(String::as_str);
                ClusterFigures::new(party, "pitaya", &[NATS, ETCD], names)
            }
            false => ClusterFigures::new(party, "pitaya", &[NATS], []),
        };
        let figures = context.config.figures.add_cluster(figures);
        let nats = Nats::start(&cluster, &config.server_type, &id, &member.inbox(), random[0]);
        let registrar = changes.map(|changes| {
            let etcd = Arc::clone(&figures);
            let registrar = Registrar::new(&cluster, &config.server_type, &id, changes, etcd);
            tokio::spawn(registrar.run())
        });
        let bell = watch(context.threads.eventfd(context.me).clone())?;
        let sleep = Box::pin(tokio::time::sleep(Duration::ZERO));
        let mut thread = Thread {
            member,
            nats,
            moving: None,
            servers,
            context,
            bell,
            sleep,
            figures,
            show_us: 0,
        };
        thread.run().await;
        if tokio::time::timeout(STOP_WITHIN, thread.nats.finish()).await.is_err() {
            tracing::warn!(
                "the engine has stopped before NATS had taken all messages: some are lost"
            );
        }
        drop(thread);
        // It finds its channel closed, and takes this server off the list.
        if let Some(registrar) = registrar
            && tokio::time::timeout(STOP_WITHIN, registrar).await.is_err()
        {
            tracing::warn!(
                "etcd did not remove this server in time: its entry stays for heartbeat_ttl"
            );
        }
        Ok(())
    }
}

/// Has the runtime watch the doorbell.
#[allow(unsafe_code)] // The runtime can't know how long a descriptor stays open.
fn watch(bell: Eventfd) -> std::io::Result<AsyncFd<Eventfd>> {
    // SAFETY: an `Eventfd` owns its descriptor, gives the same one each time, and stays in the
    // `AsyncFd`, so the descriptor is open for as long as it is watched.
    Ok(unsafe { AsyncFd::register_with_interest(bell, Interest::READABLE)? })
}

/// The running loop.
struct Thread {
    member: Member,
    nats: Nats,
    /// The way to another server of NATS's, as this one is about to stop.
    moving: Option<Moving>,
    servers: mpsc::Receiver<Change>,
    context: ForwarderContext,
    bell: AsyncFd<Eventfd>,
    sleep: Pin<Box<Sleep>>,
    figures: Arc<ClusterFigures>,
    /// The time from which the figures are shown again.
    show_us: u64,
}

impl Thread {
    /// Runs until the engine has stopped its shards.
    async fn run(&mut self) {
        let mut stop_at: Option<Instant> = None;
        loop {
            self.turn();
            if self.context.threads.has_to_stop_workers() {
                let stop_at = *stop_at.get_or_insert_with(|| Instant::now() + STOP_WITHIN);
                let is_done = !self.member.has_work() && !self.member.has_commands();
                if is_done || Instant::now() >= stop_at {
                    return;
                }
            }
            self.rest(stop_at.is_some()).await;
        }
    }

    /// Does all there is to do. What NATS and etcd bring has been handed in by [`Self::rest`].
    fn turn(&mut self) {
        let threads = &self.context.threads;
        let now_us = threads.now_us();
        self.member.begin_turn(now_us);
        self.member.run();
        self.nats.send(&mut self.member);
        while let Some(party) = self.member.poll_bell() {
            threads.eventfd(party).wake();
        }
        if now_us >= self.show_us {
            self.show_us = now_us + SHOW_EVERY_US;
            self.member.show(&self.figures);
        }
    }

    /// Waits until something comes, and hands it in.
    async fn rest(&mut self, is_stopping: bool) {
        let hub = Arc::clone(&self.context.threads.hub);
        let bell = hub.bell(self.context.me);
        bell.arm();
        // The second look: mail that was pushed before the bell was armed has not rung it.
        if self.member.has_work() {
            bell.disarm();
            let look = |cx: &mut Context<'_>| Poll::Ready(self.poll_events(cx).is_ready());
            std::future::poll_fn(look).await;
            // What NATS has to send and to read is done by other tasks of this thread.
            return tokio::task::yield_now().await;
        }
        self.set_alarm(is_stopping);
        std::future::poll_fn(|cx| self.poll_events(cx)).await;
        bell.disarm();
    }

    /// Sets when to wake up at the latest. An alarm that is set for earlier is left to go off, as
    /// most of them are for requests that are answered long before.
    fn set_alarm(&mut self, is_stopping: bool) {
        let now_us = self.context.threads.now_us();
        let longest = if is_stopping { STOP_WITHIN / 50 } else { SLEEP_MAX };
        let deadline_us = self.member.next_deadline_us().unwrap_or(u64::MAX);
        let wait = longest.min(Duration::from_micros(deadline_us.saturating_sub(now_us)));
        let alarm = tokio::time::Instant::now() + wait;
        if self.sleep.is_elapsed() || self.sleep.deadline() > alarm {
            self.sleep.as_mut().reset(alarm);
        }
    }

    /// Hands in what has come; ready if anything has.
    fn poll_events(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.member.advance(self.context.threads.now_us());
        // In front of an older connection, whose answers follow on what was pushed here.
        let mut has_come = self.nats.poll(cx, &mut self.member);
        has_come |= self.poll_moving(cx);
        while let Poll::Ready(Some(change)) = self.servers.poll_recv(cx) {
            self.member.handle_servers(change);
            has_come = true;
        }
        while let Poll::Ready(Ok(mut ready)) = self.bell.poll_read_ready(cx) {
            self.bell.get_ref().clear();
            ready.clear_ready();
            has_come = true;
        }
        has_come |= self.sleep.as_mut().poll(cx).is_ready();
        if has_come { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Thread {
    /// Leaves a NATS server that is about to stop. `true` if anything has come.
    fn poll_moving(&mut self, cx: &mut Context<'_>) -> bool {
        if self.moving.is_none() && self.nats.is_lame() {
            self.moving = Some(Moving::Connecting(self.nats.another()));
        }
        let Some(moving) = self.moving.take() else { return false };
        let (moving, has_come) = moving.poll(cx, &mut self.nats, &mut self.member);
        self.moving = moving;
        has_come
    }
}

/// A number that no other process has.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A UUID, version 4.
fn uuid([high, low]: [u64; 2]) -> String {
    let high = high & !0xf000 | 0x4000;
    let low = low & !(3 << 62) | 2 << 62;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_and_differ() {
        assert_eq!(uuid([0; 2]), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid([u64::MAX; 2]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_ne!(random(), random());
    }
}

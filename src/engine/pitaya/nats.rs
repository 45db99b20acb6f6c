//! The connection to NATS: the subjects that are subscribed to, and the messages that are sent.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, Message, Subscriber};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{AbortHandle, Abortable, SelectAll, abortable};
use futures_util::{FutureExt as _, Sink as _, Stream, StreamExt as _};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::mpsc;

use crate::limits::turn::CLUSTER_MESSAGES_PER_TURN;
use crate::pitaya::{Command, Member, PitayaCluster, subjects};

/// The client, and all that it listens to.
pub(super) struct Nats {
    client: Client,
    frontend_type: Arc<str>,
    /// Answers to requests.
    inbox: Subscriber,
    /// Requests of backends.
    requests: Subscriber,
    /// Logins at frontends of this type, if they matter.
    bindings: Option<Subscriber>,
    /// Changes of the connection.
    changes: mpsc::Receiver<ConnectionChange>,
    /// The server that it is to is about to stop.
    is_lame: bool,
    /// The users whose messages come on the connection that this one is to replace, and are not
    /// taken here yet.
    muted: Option<Muted>,
    /// Pushes and kicks for users.
    heard: SelectAll<Abortable<User>>,
    /// Which users those are, by uid.
    users: FxHashMap<Arc<str>, Listening>,
    /// Bytes of messages that the client was given since it was known to have written all.
    unflushed: usize,
    /// Ready when it has.
    flush: Option<BoxFuture<'static, ()>>,
}

/// A change of the connection, as NATS's client tells it.
#[derive(Debug, Clone, Copy)]
enum ConnectionChange {
    Connected,
    Disconnected,
    /// The server is about to stop.
    LameDuck,
}

/// Whom another connection listens to.
struct Muted {
    users: FxHashSet<Arc<str>>,
    /// For the streams of these users.
    is_muted: Arc<AtomicBool>,
}

/// A message for a user.
enum Heard {
    Push(Bytes),
    Kick(Bytes),
}

/// One user's subjects.
struct User {
    pushes: Subscriber,
    kicks: Subscriber,
    /// There while another connection may hear the same.
    is_muted: Option<Arc<AtomicBool>>,
}

impl User {
    /// Drops what another connection has heard.
    fn drop_muted(&mut self, cx: &mut Context<'_>) {
        let is_muted = |flag: &Arc<AtomicBool>| flag.load(Ordering::Relaxed);
        if self.is_muted.as_ref().is_some_and(is_muted) {
            while let Poll::Ready(Some(_)) = self.pushes.poll_next_unpin(cx) {}
            while let Poll::Ready(Some(_)) = self.kicks.poll_next_unpin(cx) {}
        } else {
            self.is_muted = None;
        }
    }
}

impl Stream for User {
    type Item = Heard;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Heard>> {
        if self.is_muted.is_some() {
            self.drop_muted(cx);
        }
        if let Poll::Ready(push) = self.pushes.poll_next_unpin(cx) {
            return Poll::Ready(push.map(|message| Heard::Push(message.payload)));
        }
        self.kicks.poll_next_unpin(cx).map(|kick| kick.map(|kick| Heard::Kick(kick.payload)))
    }
}

/// Ends the listening to a user when it is dropped.
struct Listening(AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Messages that the client's own task has not taken yet, and bytes of them: with this many it
/// gets no more before it has written all.
const CLIENT_QUEUE_LEN: usize = 4_096;
const CLIENT_QUEUE_BYTES: usize = 1024 * 1024;
/// Pitaya's own, for pings and for making a connection.
const PING_INTERVAL: Duration = Duration::from_secs(120);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The waits between attempts to connect: so many of the first length, as an answer to what was
/// sent is lost if its server is back at NATS before this one; then twice as long each time, up to
/// the greatest.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRIES_OF_FIRST: usize = 60;
const RETRY_MAX: Duration = Duration::from_secs(1);
/// The time in which NATS has to send back what it was sent, before it is sent again.
const SETTLE_WITHIN: Duration = Duration::from_secs(1);
/// Changes of the connection that have not been read yet.
const CHANGES_MAX: usize = 16;

impl Nats {
    /// Begins to connect, and to listen once that is done.
    pub(super) async fn start(
        cluster: &PitayaCluster,
        frontend_type: &Arc<str>,
        id: &str,
        inbox: String,
    ) -> std::io::Result<Self> {
        Self::start_at(addresses(cluster), cluster, frontend_type, id, inbox).await
    }

    async fn start_at(
        addresses: Vec<async_nats::ServerAddr>,
        cluster: &PitayaCluster,
        frontend_type: &Arc<str>,
        id: &str,
        inbox: String,
    ) -> std::io::Result<Self> {
        let (tell, changes) = mpsc::channel(CHANGES_MAX);
        let client = options(cluster, tell).connect(addresses).await;
        let client = client.map_err(std::io::Error::other)?;
        let listen = async |subject| client.subscribe(subject).await.map_err(std::io::Error::other);
        let inbox = listen(inbox.into()).await?;
        let requests = listen(subjects::server(frontend_type, id)).await?;
        let bindings = match cluster.unique_session {
            true => Some(listen(subjects::bindings(frontend_type)).await?),
            false => None,
        };
        Ok(Self {
            client,
            frontend_type: Arc::clone(frontend_type),
            inbox,
            requests,
            bindings,
            changes,
            is_lame: false,
            muted: None,
            heard: SelectAll::new(),
            users: FxHashMap::default(),
            unflushed: 0,
            flush: None,
        })
    }

    /// Another connection to the same NATS servers, which is made when this is done.
    pub(super) fn another(
        &self,
        cluster: PitayaCluster,
        id: Arc<str>,
        inbox: String,
    ) -> BoxFuture<'static, std::io::Result<Self>> {
        let (client, frontend_type) = (self.client.clone(), Arc::clone(&self.frontend_type));
        Box::pin(async move {
            // With those that NATS has told of; unless it says nothing any more.
            let pool = tokio::time::timeout(SETTLE_WITHIN, client.server_pool()).await;
            let known = pool.ok().and_then(Result::ok).unwrap_or_default();
            let mut addresses: Vec<_> = known.into_iter().map(|server| server.addr).collect();
            if addresses.is_empty() {
                addresses = self::addresses(&cluster);
            }
            let nats = Self::start_at(addresses, &cluster, &frontend_type, &id, inbox).await?;
            nats.settle().await;
            Ok(nats)
        })
    }

    /// Ready when the server has done all that it was sent before.
    pub(super) fn settle(&self) -> BoxFuture<'static, ()> {
        let client = self.client.clone();
        Box::pin(async move {
            loop {
                let inbox = client.new_inbox();
                let Ok(mut echo) = client.subscribe(inbox.clone()).await else { return };
                let sent = client.publish(inbox, Bytes::new()).await;
                // What was sent may have been lost with the connection.
                let came = tokio::time::timeout(SETTLE_WITHIN, echo.next()).await;
                if sent.is_err() || came.is_ok() {
                    return;
                }
            }
        })
    }

    /// True if the server has said that it is about to stop.
    pub(super) fn is_lame(&self) -> bool {
        self.is_lame
    }

    /// There is no other server, so it stays until this one ends the connection.
    pub(super) fn stay(&mut self) {
        self.is_lame = false;
    }

    /// Ignores what an older connection gets.
    pub(super) fn mute(&mut self, older: &Self) {
        let users = older.users.keys().map(Arc::clone).collect();
        self.muted = Some(Muted { users, is_muted: Arc::new(AtomicBool::new(true)) });
    }

    /// Takes everything from here on.
    pub(super) fn unmute(&mut self, cx: &mut Context<'_>) {
        if let Some(muted) = &self.muted {
            // What has come so far the older one has heard, or is about to.
            while let Poll::Ready(Some(_)) = self.heard.poll_next_unpin(cx) {}
            each(&mut self.requests, cx, drop);
            if let Some(bindings) = &mut self.bindings {
                each(bindings, cx, drop);
            }
            muted.is_muted.store(false, Ordering::Relaxed);
            self.muted = None;
        }
    }

    /// Listens no more, and sends what it was given.
    pub(super) fn leave(self) {
        let client = self.client;
        tokio::spawn(async move { client.drain().await });
    }

    /// Hands in what has come. `true` if anything has.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, member: &mut Member) -> bool {
        let mut has_come = false;
        while let Poll::Ready(Some(told)) = self.changes.poll_recv(cx) {
            has_come = true;
            match told {
                ConnectionChange::Connected => {
                    self.is_lame = false;
                    member.handle_connected();
                }
                ConnectionChange::Disconnected => member.handle_lost(),
                ConnectionChange::LameDuck => self.is_lame = true,
            }
        }
        has_come |= self.poll_received(cx, member);
        // A task that waits for room is woken here.
        has_come | (member.has_commands() && self.poll_room(cx).is_ready())
    }

    /// The same of messages alone.
    pub(super) fn poll_received(&mut self, cx: &mut Context<'_>, member: &mut Member) -> bool {
        let mut has_come = false;
        // In front of the answers, so that what was pushed before an answer comes before it.
        for _ in 0..CLUSTER_MESSAGES_PER_TURN {
            match self.heard.poll_next_unpin(cx) {
                Poll::Ready(Some(Heard::Push(payload))) => member.handle_push(payload),
                Poll::Ready(Some(Heard::Kick(payload))) => member.handle_kick(payload),
                _ => break,
            }
            has_come = true;
        }
        let is_muted = self.muted.is_some();
        // Answers wait, as they would overtake pushes that the older connection gets. One that has
        // come on both is taken once.
        has_come |= !is_muted
            && each(&mut self.inbox, cx, |message| {
                let status = message.status.map(|status| status.as_u16());
                member.handle_answer(&message.subject, status, message.payload);
            });
        has_come |= each(&mut self.requests, cx, |message| {
            if !is_muted {
                member.handle_request(message.reply, message.payload);
            }
        });
        if let Some(bindings) = &mut self.bindings {
            has_come |= each(bindings, cx, |message| {
                if !is_muted {
                    member.handle_binding(message.payload);
                }
            });
        }
        has_come
    }

    /// Ready if the client takes another message.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unflushed >= CLIENT_QUEUE_BYTES {
            let client = &self.client;
            let flush = self.flush.get_or_insert_with(|| {
                let client = client.clone();
                // It fails where the client has ended, which will say so itself.
                Box::pin(async move { drop(client.flush().await) })
            });
            std::task::ready!(flush.poll_unpin(cx));
            (self.flush, self.unflushed) = (None, 0);
        }
        Pin::new(&mut self.client).poll_ready(cx).map(drop)
    }

    /// Sends what waits, as far as there is room for it.
    pub(super) fn send(&mut self, member: &mut Member) {
        let mut cx = Context::from_waker(Waker::noop());
        while let Some(command) = member.poll_command() {
            let is_done = match command {
                Command::Publish { .. } => {
                    if self.poll_room(&mut cx).is_pending() {
                        return member.give_back(command);
                    }
                    self.publish(command, member);
                    continue;
                }
                Command::Subscribe { ref uid } => self.listen(uid),
                Command::Unsubscribe { ref uid } => {
                    self.users.remove(uid);
                    true
                }
                Command::Review => {
                    self.users.retain(|uid, _| member.has_user(uid));
                    true
                }
            };
            if !is_done {
                return member.give_back(command);
            }
        }
    }

    fn publish(&mut self, command: Command, member: &mut Member) {
        let Command::Publish { subject, reply, payload, call } = command else { return };
        self.unflushed += payload.len();
        let message =
            async_nats::message::OutboundMessage { subject, reply, payload, headers: None };
        if let Err(error) = Pin::new(&mut self.client).start_send(message) {
            tracing::debug!(%error, "a message was not sent");
            if let Some(call) = call {
                member.handle_unsent(call);
            }
        }
    }

    /// Waits until all is sent that has been given.
    pub(super) async fn finish(&self) {
        if let Err(error) = self.client.flush().await {
            crate::log::seldom!(warn, %error, "not all was sent to NATS");
        }
    }

    /// Listens to a user. `true` if the client had room for that.
    fn listen(&mut self, uid: &Arc<str>) -> bool {
        if self.users.contains_key(uid) {
            return true;
        }
        let subscribe = |subject| self.client.subscribe(subject).now_or_never();
        let pushes = subscribe(subjects::push(&self.frontend_type, uid));
        let kicks = subscribe(subjects::kick(&self.frontend_type, uid));
        let (pushes, kicks) = match (pushes, kicks) {
            (Some(Ok(pushes)), Some(Ok(kicks))) => (pushes, kicks),
            // No room for one of them: the other one, if there is one, is dropped.
            (None, _) | (_, None) => return false,
            (Some(Err(error)), _) | (_, Some(Err(error))) => {
                crate::log::seldom!(warn, %error, "a user can't be listened to");
                return true;
            }
        };
        let is_muted = self.muted.as_ref().filter(|muted| muted.users.contains(uid));
        let is_muted = is_muted.map(|muted| Arc::clone(&muted.is_muted));
        let (user, listening) = abortable(User { pushes, kicks, is_muted });
        self.heard.push(user);
        self.users.insert(Arc::clone(uid), Listening(listening));
        true
    }
}

/// Takes what has come on one subject. `true` if anything has.
fn each(subscriber: &mut Subscriber, cx: &mut Context<'_>, mut take: impl FnMut(Message)) -> bool {
    for taken in 0..CLUSTER_MESSAGES_PER_TURN {
        match Pin::new(&mut *subscriber).poll_next(cx) {
            Poll::Ready(Some(message)) => take(message),
            _ => return taken > 0,
        }
    }
    true
}

fn addresses(cluster: &PitayaCluster) -> Vec<async_nats::ServerAddr> {
    // They have been checked.
    cluster.nats.iter().filter_map(|url| url.parse().ok()).collect()
}

fn options(cluster: &PitayaCluster, tell: mpsc::Sender<ConnectionChange>) -> ConnectOptions {
    let options = ConnectOptions::new()
        .name("shaddock")
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_delay_callback(|attempts| {
            let doublings = attempts.saturating_sub(RETRIES_OF_FIRST).min(16);
            let wait = RETRY_FIRST.saturating_mul(1 << doublings).min(RETRY_MAX);
            if attempts <= 1 { Duration::ZERO } else { wait }
        })
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECT_TIMEOUT)
        .client_capacity(CLIENT_QUEUE_LEN)
        .subscription_capacity(cluster.limits.inbox_len_max)
        .event_callback(move |event| {
            let tell = tell.clone();
            async move {
                match event {
                    Event::Connected => drop(tell.send(ConnectionChange::Connected).await),
                    Event::Disconnected => drop(tell.send(ConnectionChange::Disconnected).await),
                    Event::LameDuckMode => drop(tell.send(ConnectionChange::LameDuck).await),
                    Event::SlowConsumer(_) => {
                        crate::log::seldom!(
                            warn,
                            "messages from NATS were dropped, as too many waited"
                        );
                    }
                    error @ (Event::ClientError(_) | Event::ServerError(_)) => {
                        crate::log::seldom!(warn, %error, "NATS");
                    }
                    other => tracing::debug!(%other, "NATS"),
                }
            }
        });
    match cluster.nats_login.clone().or_else(|| login_of(&addresses(cluster))) {
        Some((user, password)) => options.user_and_password(user, password),
        None => options,
    }
}

/// The login that stands in an address, which the client of NATS leaves alone.
fn login_of(addresses: &[async_nats::ServerAddr]) -> Option<(String, String)> {
    let login = addresses.iter().find_map(|address| address.username().zip(address.password()));
    login.map(|(user, password)| (unescaped(user), unescaped(password)))
}

/// Text of an address, where `%` and two digits stand for a byte.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).filter(|_| *first == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = &tail[if byte.is_some() { 2 } else { 0 }..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

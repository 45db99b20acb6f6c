//! Keeps this server in etcd's list, and follows the list of the others.
//!
//! One task, which makes a connection and does all on it until something fails; then it waits and
//! begins anew, perhaps with the next of etcd's servers. The lease outlives the connection, and so
//! does everybody's knowledge of this server, for as long as its time to live.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::metrics::ClusterFigures;
use crate::pitaya::etcd::{
    AuthenticateRequest, AuthenticateResponse, Empty, LeaseGrantRequest, LeaseGrantResponse,
    LeaseKeepAliveResponse, LeaseRequest, PutRequest, RangeRequest, RangeResponse,
    WatchCreateRequest, WatchRequest, WatchResponse, path, range_end,
};
use crate::pitaya::{Change, ClusterTls, ETCD, KEYS, PitayaCluster, ServerName, etcd_uri};

/// The task that talks to etcd.
pub(super) struct Registrar {
    endpoints: Vec<Endpoint>,
    login: Option<(String, String)>,
    tls: Option<ClusterTls>,
    prefix: String,
    name: ServerName,
    value: Vec<u8>,
    ttl: Duration,
    resync: Duration,
    list_bytes_max: usize,
    /// The ways to the threads of this server, at least one.
    changes: Vec<mpsc::Sender<Change>>,
    figures: Arc<ClusterFigures>,
    /// The lease that this server's key hangs on, if it may still be good.
    lease: Option<i64>,
    /// Etcd has forgotten the lease that there was.
    has_lost_lease: bool,
    /// The newest revision that etcd has told of.
    revision: i64,
}

/// Pitaya's own.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time in which etcd has to answer anything.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The waits before it is tried again: the first, and the greatest.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Etcd is told that this server lives so many times in its time to live.
const BEATS_PER_TTL: u32 = 3;

/// A failure after which it begins anew on another connection.
#[derive(Debug)]
enum EtcdError {
    Connection(tonic::transport::Error),
    /// A certificate or key can't be read.
    Files(String),
    Call(Status),
    /// It does not answer.
    Silent,
    /// The lease has run out.
    Lease,
    /// It tells of no changes any more.
    Watch(String),
}

impl std::fmt::Display for EtcdError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connection(error) => error.fmt(f),
            Self::Files(why) => f.write_str(why),
            Self::Call(status) => write!(f, "{:?}: {}", status.code(), status.message()),
            Self::Silent => f.write_str("it does not answer"),
            Self::Lease => f.write_str("the lease has run out"),
            Self::Watch(why) => write!(f, "the watch has ended: {why}"),
        }
    }
}

impl From<Status> for EtcdError {
    fn from(status: Status) -> Self {
        Self::Call(status)
    }
}

impl Registrar {
    pub(super) fn new(
        cluster: &PitayaCluster,
        server_type: &str,
        id: &str,
        changes: Vec<mpsc::Sender<Change>>,
        figures: Arc<ClusterFigures>,
    ) -> Self {
        // They have been checked.
        let uris = cluster.etcd.iter().filter_map(|address| etcd_uri(address));
        let endpoint = |uri| {
            Endpoint::from(uri)
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                // One that has gone without a word is found so in time for the lease.
                .http2_keep_alive_interval(cluster.heartbeat_ttl / BEATS_PER_TTL)
                .keep_alive_timeout(CALL_TIMEOUT)
                .keep_alive_while_idle(true)
        };
        let entry = cluster.entry(server_type, id);
        Self {
            endpoints: uris.map(endpoint).collect(),
            login: cluster.etcd_login.clone(),
            tls: cluster.etcd_tls.clone(),
            prefix: cluster.prefix.clone(),
            name: PitayaCluster::name(server_type, id),
            // Of text and of maps from text to text, which are JSON.
            value: serde_json::to_vec(&entry).unwrap_or_default(),
            ttl: cluster.heartbeat_ttl,
            resync: cluster.resync,
            list_bytes_max: cluster.limits.list_bytes_max,
            changes,
            figures,
            lease: None,
            has_lost_lease: false,
            revision: 0,
        }
    }

    /// Runs until the first receiver of changes is gone; then takes this server off the list.
    pub(super) async fn run(mut self) {
        let mut wait = RETRY_FIRST;
        let stopped = self.changes[0].clone();
        for endpoint in self.endpoints.clone().iter().cycle() {
            let began = Instant::now();
            let mut etcd = None;
            let session = self.serve(endpoint, &mut etcd);
            let error = tokio::select! {
                error = session => error,
                () = stopped.closed() => return self.leave(etcd).await,
            };
            self.figures.set_coordinator(ETCD, false);
            if began.elapsed() > RETRY_MAX {
                wait = RETRY_FIRST;
            }
            if matches!(error, EtcdError::Lease) {
                self.forget_lease();
            }
            crate::log::seldom!(
                warn,
                why = %error,
                "no connection to etcd; serving on with what is known"
            );
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stopped.closed() => return,
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// Does everything on one connection until something fails.
    async fn serve(&mut self, endpoint: &Endpoint, open: &mut Option<Etcd>) -> EtcdError {
        match self.try_serve(endpoint, open).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    /// Has an endpoint of `https` use the files that are configured. They are read anew, so that a
    /// certificate that was renewed is used.
    fn with_tls(&self, endpoint: Endpoint) -> Result<Endpoint, EtcdError> {
        if endpoint.uri().scheme_str() != Some("https") {
            return Ok(endpoint);
        }
        let pem = self.tls.clone().unwrap_or_default().read();
        let pem = pem.map_err(|bad| EtcdError::Files(bad.to_string()))?;
        let mut config = match pem.ca {
            Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some((certificate, key)) = pem.certificate {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        endpoint.tls_config(config).map_err(EtcdError::Connection)
    }

    async fn try_serve(
        &mut self,
        endpoint: &Endpoint,
        open: &mut Option<Etcd>,
    ) -> Result<Infallible, EtcdError> {
        let endpoint = self.with_tls(endpoint.clone())?;
        let channel = endpoint.connect().await.map_err(EtcdError::Connection)?;
        let etcd = open.insert(Etcd::new(channel, self.list_bytes_max));
        if let Some((name, password)) = self.login.clone() {
            etcd.log_in(name, password).await?;
        }
        // In front of the list, as it tells how to read it.
        if self.lease.is_some() && matches!(self.keep_alive(etcd).await, Err(EtcdError::Lease)) {
            self.forget_lease();
        }
        // Also in front of the list, as messages go to the servers in it: one of them that is to
        // bind or push looks for this server in a list of its own.
        let registered = self.register(etcd).await;
        // Where etcd reads but does not write, the others can be called still.
        self.read_all(etcd).await?;
        registered?;
        let first = self.revision + 1;
        tracing::info!(id = self.name.id, "this server is registered in etcd");
        self.figures.set_coordinator(ETCD, true);
        let mut changes = etcd.watch(&self.keys(), first).await?;
        let mut beat = ticks(self.ttl / BEATS_PER_TTL);
        let mut resync = ticks(self.resync);
        loop {
            tokio::select! {
                change = changes.message() => self.follow(change?).await?,
                _ = beat.tick() => self.keep_alive(etcd).await?,
                _ = resync.tick() => self.read_all(etcd).await?,
            }
        }
    }

    /// The beginning of the keys of all servers.
    fn keys(&self) -> String {
        format!("{}{KEYS}", self.prefix)
    }

    fn forget_lease(&mut self) {
        self.lease = None;
        self.has_lost_lease = true;
    }

    /// Puts this server into the list, on a lease that is good.
    async fn register(&mut self, etcd: &mut Etcd) -> Result<(), EtcdError> {
        let lease = match self.lease {
            Some(lease) => lease,
            None => {
                let ttl = i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX);
                let granted: LeaseGrantResponse =
                    etcd.call(path::GRANT, LeaseGrantRequest { ttl }).await?;
                *self.lease.insert(granted.id)
            }
        };
        let key = self.name.key(&self.prefix).into_bytes();
        let put = PutRequest { key, value: self.value.clone(), lease };
        let Empty {} = etcd.call(path::PUT, put).await?;
        Ok(())
    }

    async fn keep_alive(&mut self, etcd: &mut Etcd) -> Result<(), EtcdError> {
        let Some(id) = self.lease else { return Err(EtcdError::Lease) };
        let one = stream::once(std::future::ready(LeaseRequest { id }));
        let answer = async {
            let mut answers: Streaming<LeaseKeepAliveResponse> =
                etcd.stream(path::KEEP_ALIVE, one).await?;
            answers.message().await
        };
        let answer =
            tokio::time::timeout(CALL_TIMEOUT, answer).await.map_err(|_| EtcdError::Silent)?;
        match answer? {
            Some(LeaseKeepAliveResponse { ttl: 1.. }) => Ok(()),
            _ => Err(EtcdError::Lease),
        }
    }

    /// Reads the whole list.
    ///
    /// Etcd that has forgotten this server's lease, or what it has told already, has lost its data,
    /// most likely, and the list lacks servers that live: they put themselves in again at
    /// their next sign of life.
    async fn read_all(&mut self, etcd: &mut Etcd) -> Result<(), EtcdError> {
        let key = self.keys();
        let range_end = range_end(&key);
        let range = RangeRequest { key: key.into_bytes(), range_end, keys_only: true };
        let found: RangeResponse = etcd.call(path::RANGE, range).await?;
        let revision = found.header.map_or(0, |header| header.revision);
        let has_lost_lease = std::mem::take(&mut self.has_lost_lease);
        let is_restart = has_lost_lease || revision < self.revision;
        let names = found.kvs.iter().filter_map(|kv| self.name_of(&kv.key)).collect();
        if is_restart {
            tracing::warn!("etcd has lost its data; servers are kept until their leases are over");
        }
        self.tell(if is_restart { Change::Restart(names) } else { Change::Replace(names) }).await;
        self.revision = revision;
        Ok(())
    }

    /// Takes over what the watch has told.
    async fn follow(&mut self, told: Option<WatchResponse>) -> Result<(), EtcdError> {
        let Some(told) = told else { return Err(EtcdError::Watch("its stream has ended".into())) };
        if told.canceled {
            return Err(EtcdError::Watch(told.cancel_reason));
        }
        let revision = told.header.map_or(0, |header| header.revision);
        self.revision = self.revision.max(revision);
        for event in told.events {
            let is_delete = event.is_delete();
            let name = event.kv.and_then(|kv| self.name_of(&kv.key));
            match name {
                Some(name) if is_delete => self.tell(Change::Delete(name)).await,
                Some(name) => self.tell(Change::Put(name)).await,
                None => {}
            }
        }
        Ok(())
    }

    fn name_of(&self, key: &[u8]) -> Option<ServerName> {
        let name = ServerName::from_key(&self.prefix, key);
        if name.is_none() {
            let key = String::from_utf8_lossy(key);
            tracing::debug!(%key, "a key that names no server that can be called");
        }
        name
    }

    async fn tell(&self, change: Change) {
        for thread in &self.changes {
            // Where the receiver is gone, the engine stops, and this task with it.
            thread.send(change.clone()).await.ok();
        }
    }

    /// Takes this server off the list.
    async fn leave(&mut self, etcd: Option<Etcd>) {
        if let (Some(mut etcd), Some(id)) = (etcd, self.lease.take()) {
            let left: Result<Empty, EtcdError> = etcd.call(path::REVOKE, LeaseRequest { id }).await;
            if let Err(why) = left {
                tracing::warn!(
                    %why,
                    "etcd did not remove this server: its entry stays for heartbeat_ttl"
                );
            }
        }
    }
}

/// Regular intervals, of which the first ends after one.
fn ticks(interval: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// One connection.
struct Etcd {
    grpc: Grpc<Channel>,
    /// The token that stands for the login.
    token: Option<MetadataValue<Ascii>>,
}

impl Etcd {
    fn new(channel: Channel, message_bytes_max: usize) -> Self {
        let grpc = Grpc::new(channel).max_decoding_message_size(message_bytes_max);
        Self { grpc, token: None }
    }

    async fn log_in(&mut self, name: String, password: String) -> Result<(), EtcdError> {
        let login = AuthenticateRequest { name, password };
        let AuthenticateResponse { token } = self.call(path::AUTHENTICATE, login).await?;
        let token = token.parse();
        self.token = Some(token.map_err(|_| Status::internal("the login's token is no text"))?);
        Ok(())
    }

    /// Asks one question.
    async fn call<Q, A>(&mut self, path: &'static str, question: Q) -> Result<A, EtcdError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let request = self.request(question);
        let codec = ProstCodec::<Q, A>::default();
        let answer = async {
            self.grpc.ready().await.map_err(EtcdError::Connection)?;
            let path = PathAndQuery::from_static(path);
            Ok(self.grpc.unary(request, path, codec).await?.into_inner())
        };
        tokio::time::timeout(CALL_TIMEOUT, answer).await.map_err(|_| EtcdError::Silent)?
    }

    /// Opens a stream of questions and answers.
    async fn stream<Q, A, S>(
        &mut self,
        path: &'static str,
        questions: S,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
        S: Stream<Item = Q> + Send + 'static,
    {
        let request = self.request(questions);
        let ready = self.grpc.ready().await;
        ready.map_err(|error| Status::new(Code::Unavailable, error.to_string()))?;
        let path = PathAndQuery::from_static(path);
        let codec = ProstCodec::<Q, A>::default();
        Ok(self.grpc.streaming(request, path, codec).await?.into_inner())
    }

    /// Follows the keys that begin so, from a revision on.
    async fn watch(
        &mut self,
        keys: &str,
        start_revision: i64,
    ) -> Result<Streaming<WatchResponse>, EtcdError> {
        let create = WatchCreateRequest {
            key: keys.as_bytes().to_vec(),
            range_end: range_end(keys),
            start_revision,
        };
        // The watch lasts as long as the questions do.
        let questions = stream::once(std::future::ready(WatchRequest { create: Some(create) }))
            .chain(stream::pending());
        let opened = self.stream(path::WATCH, questions);
        Ok(tokio::time::timeout(CALL_TIMEOUT, opened).await.map_err(|_| EtcdError::Silent)??)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }
}

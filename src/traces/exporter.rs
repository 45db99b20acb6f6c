//! The thread that sends spans to the collector.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, UNIX_EPOCH};

use prost::Message as _;
use ureq::Agent;

use super::backoff::{Backoff, is_retryable, retry_after};
use super::bounds::{
    ANSWER_BYTES_MAX, BATCH_BYTES_MAX, BATCH_SPANS_MAX, FLUSH_TIME_MAX, LOOK_EVERY,
};
use super::options::{Settings, is_secured};
use super::otlp::{
    ExportTraceServiceRequest, ExportTraceServiceResponse, InstrumentationScope, KeyValue,
    Resource, ResourceSpans, ScopeSpans, Span,
};
use super::tls;
use crate::engine::Handle;
use crate::error::StartError;
use crate::span::{Random, SpanLoss, SpanQueues};

/// The running thread. It has ended once this is dropped, and has sent what was left, within
/// [`FLUSH_TIME_MAX`] and the time that a request may take.
pub(super) struct Exporter {
    /// Tells the thread to end, by its own end.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The state of the thread.
struct Sending {
    queues: Arc<SpanQueues>,
    handle: Handle,
    agent: Agent,
    settings: Settings,
    resource: Resource,
    stopped: Receiver<()>,
    /// The time by which it ends; none while the engine runs.
    end: Option<Instant>,
    /// The collector has asked for no request before this time.
    not_before: Instant,
    random: Random,
}

/// A request that the collector has not taken.
struct Refused {
    why: String,
    /// True if it may take the same request later.
    is_retryable: bool,
    /// The time that it asks for.
    retry_after: Option<Duration>,
}

/// Spans that go together.
#[derive(Default)]
struct Batch {
    spans: Vec<Span>,
    bytes: usize,
}

impl Exporter {
    /// Starts the thread, unless nothing is traced.
    pub(super) fn start(settings: Settings, handle: &Handle) -> Result<Self, StartError> {
        let Some(queues) = handle.spans() else { return Ok(Self { stop: None, thread: None }) };
        let (stop, stopped) = channel();
        let mut config = Agent::config_builder()
            // A collector is near. One that needs a proxy needs a collector in front of it.
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            // A connection that nobody uses for a while may have been closed by the other side,
            // which would cost a batch.
            .max_idle_connections(0)
            .user_agent(concat!("shaddock/", env!("CARGO_PKG_VERSION")));
        if is_secured(&settings.url) {
            config = config.tls_config(tls::config(settings.authorities.as_deref()));
        }
        let mut attributes: Vec<KeyValue> =
            settings.attributes.iter().map(|(key, value)| KeyValue::text(key, value)).collect();
        let is_named = |key: &str| settings.attributes.iter().any(|(other, _)| other == key);
        let own = [
            ("service.instance.id", handle.server_id()),
            ("shaddock.server_type", handle.server_type()),
        ];
        let own = own.into_iter().filter(|(key, _)| !is_named(key));
        attributes.extend(own.map(|(key, value)| KeyValue::text(key, value)));
        let sending = Sending {
            queues,
            handle: handle.clone(),
            agent: config.build().new_agent(),
            settings,
            resource: Resource { attributes },
            stopped,
            end: None,
            not_before: Instant::now(),
            random: Random::new(),
        };
        let thread = std::thread::Builder::new().name("shaddock-traces".into());
        let thread = thread
            .spawn(move || sending.run())
            .map_err(|error| StartError::System { what: "the thread that sends traces", error })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that sends traces has panicked");
        }
    }
}

impl Sending {
    fn run(mut self) {
        loop {
            // Meanwhile spans wait in their queues, which are bounded.
            self.pause(self.not_before.saturating_duration_since(Instant::now()));
            let batch = self.take();
            let (is_empty, is_full) = (batch.spans.is_empty(), batch.is_full());
            if !is_empty {
                self.send(batch);
            }
            match self.end {
                Some(_) if is_empty => return,
                Some(_) => continue,
                None => {}
            }
            self.pause(if is_full { Duration::ZERO } else { LOOK_EVERY });
        }
    }

    /// Sleeps, but no longer than the engine runs.
    fn pause(&mut self, time: Duration) {
        if self.end.is_none() && self.stopped.recv_timeout(time) != Err(RecvTimeoutError::Timeout) {
            self.end = Some(Instant::now() + FLUSH_TIME_MAX);
        }
    }

    /// Takes the spans that there are, some of each shard in turn.
    fn take(&self) -> Batch {
        let mut batch = Batch::default();
        let clock_zero = self.handle.clock_zero().duration_since(UNIX_EPOCH).unwrap_or_default();
        loop {
            let before = batch.spans.len();
            for shard in 0..self.queues.shards() {
                if batch.is_full() {
                    return batch;
                }
                if let Some(span) = self.queues.pop(shard) {
                    batch.push(Span::of(&span, clock_zero));
                }
            }
            if batch.spans.len() == before {
                return batch;
            }
        }
    }

    /// Sends a batch, and again if the collector may take it later. What it does not take is lost,
    /// and counted.
    fn send(&mut self, batch: Batch) {
        let spans = batch.spans.len() as u64;
        let body = self.request(batch).encode_to_vec();
        let retry_until = Instant::now() + self.settings.retry_within;
        let mut backoff = Backoff::new();
        let rejected = loop {
            let refused = match self.try_send(&body) {
                Err(refused) if refused.is_retryable && self.end.is_none() => refused,
                outcome => break outcome,
            };
            let (now, wait) = (Instant::now(), refused.retry_after.unwrap_or_default());
            self.not_before = now + wait;
            let pause = backoff.pause(self.random.next()).max(wait);
            if now + pause > retry_until {
                break Err(refused);
            }
            self.pause(pause);
        };
        match rejected {
            Ok(rejected) => {
                let rejected = rejected.min(spans);
                self.queues.count_sent(spans - rejected);
                self.queues.count_lost(SpanLoss::Collector, rejected);
            }
            Err(Refused { why, .. }) => {
                self.queues.count_lost(SpanLoss::Collector, spans);
                // A collector may have a part in the text.
                let (url, why) = (&*self.settings.url, crate::log::Excerpt(&why));
                crate::log::seldom!(
                    warn,
                    url,
                    %why,
                    spans,
                    "spans were lost: the collector has not taken them"
                );
            }
        }
    }

    /// Sends a request once, if there is time for it.
    fn try_send(&self, body: &[u8]) -> Result<u64, Refused> {
        let Some(end) = self.end else { return self.post(body, self.settings.timeout) };
        let now = Instant::now();
        let left = end.saturating_duration_since(now);
        if left.is_zero() || now < self.not_before {
            return Err(Refused::for_good("the engine has stopped".to_owned()));
        }
        self.post(body, left.min(self.settings.timeout))
    }

    fn request(&self, batch: Batch) -> ExportTraceServiceRequest {
        let scope = InstrumentationScope {
            name: "shaddock".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans: batch.spans }];
        let resource = Some(self.resource.clone());
        ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource, scope_spans }] }
    }

    /// Posts a request; how many of its spans the collector has rejected, or why it has not taken
    /// it.
    fn post(&self, body: &[u8], timeout: Duration) -> Result<u64, Refused> {
        let request = self.agent.post(&self.settings.url);
        let mut request = request.content_type("application/x-protobuf");
        for (name, value) in &self.settings.headers {
            request = request.header(name, value);
        }
        let request = request.config().timeout_global(Some(timeout)).build();
        let mut response = request.send(body).map_err(Refused::of)?;
        let status = response.status();
        if !status.is_success() {
            let header = response.headers().get("retry-after");
            let is_retryable = is_retryable(status.as_u16());
            return Err(Refused {
                why: format!("it has answered {status}"),
                is_retryable,
                retry_after: header.and_then(|it| retry_after(it.to_str().ok()?)),
            });
        }
        let answer = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let answer = answer.map_err(|error| Refused::for_good(error.to_string()))?;
        // It has taken them, whatever else it says.
        let answer = ExportTraceServiceResponse::decode(&*answer).unwrap_or_default();
        let Some(partial) = answer.partial_success else { return Ok(0) };
        let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0);
        if rejected > 0 {
            let why = crate::log::Excerpt(&partial.error_message);
            crate::log::seldom!(warn, rejected, %why, "the collector has rejected spans");
        }
        Ok(rejected)
    }
}

impl Refused {
    fn for_good(why: String) -> Self {
        Self { why, is_retryable: false, retry_after: None }
    }

    /// A request to which no answer has come, or none of HTTP.
    fn of(error: ureq::Error) -> Self {
        let is_retryable = match &error {
            // A certificate that is not trusted, and what else is wrong with TLS.
            ureq::Error::Io(error) => error.kind() != ErrorKind::InvalidData,
            ureq::Error::Timeout(_) => true,
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
            _ => false,
        };
        Self { why: error.to_string(), is_retryable, retry_after: None }
    }
}

impl Batch {
    fn push(&mut self, span: Span) {
        self.bytes += span.encoded_len();
        self.spans.push(span);
    }

    fn is_full(&self) -> bool {
        self.spans.len() >= BATCH_SPANS_MAX || self.bytes >= BATCH_BYTES_MAX
    }
}

//! Spans for a collector of OpenTelemetry: by OTLP, in protobuf over HTTP or HTTPS.
//!
//! The shards leave spans that have ended in queues of their own (`src/span/`). One thread,
//! `shaddock-traces`, looks into them, and sends what it finds in batches. No shard waits for it: a
//! collector that is away or slow costs spans, which are counted, and nothing else.

mod backoff;
mod bounds;
mod environment;
mod exporter;
mod options;
mod otlp;
mod tls;

pub use options::Traces;

use std::net::SocketAddr;

use exporter::Exporter;

use crate::engine::{Attached, Attachment, Builder, Handle};
use crate::error::StartError;

impl Builder {
    /// Traces one in so many of the messages that are forwarded, and sends their spans to a
    /// collector of OpenTelemetry (feature `traces`). Backends of Pomelo's and Pitaya's learn of
    /// the span by a W3C `traceparent`, and go on with the trace. Of several calls the last one
    /// counts. See `docs/operating.md`.
    ///
    /// ```no_run
    /// use shaddock::{Engine, Traces, Workers};
    ///
    /// # fn main() -> Result<(), shaddock::StartError> {
    /// let engine = Engine::builder()
    ///     .listen("127.0.0.1:3010")
    ///     .forward("chat", Workers::new(1, |_| {}))
    ///     .traces(Traces::new().endpoint("http://127.0.0.1:4318").sample(100))
    ///     .start()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn traces(self, traces: Traces) -> Self {
        // What is wrong with them is told by the check of what is attached.
        let every = traces.settings().ok().and_then(|settings| settings.every);
        self.sample(every, traces)
    }
}

impl Attachment for Traces {
    fn check(&self) -> Result<(), StartError> {
        self.settings().map(drop)
    }

    fn start(
        self: Box<Self>,
        handle: Handle,
        _: SocketAddr,
    ) -> Result<Box<dyn Attached>, StartError> {
        Ok(Box::new(Exporter::start(self.settings()?, &handle)?))
    }
}

impl Attached for Exporter {
    fn address(&self) -> Option<SocketAddr> {
        None
    }
}

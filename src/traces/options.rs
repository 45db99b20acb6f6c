//! The options of traces.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use ureq::http::{HeaderName, HeaderValue, Uri};

use super::bounds::{ANSWER_TIME, ANSWER_TIME_MAX, RETRY_TIME, RETRY_TIME_MAX};
use super::environment::{self, Environment, bad};
use super::tls;
use crate::error::StartError;

/// Describes the traces of [`Builder::traces`](crate::Builder::traces): which messages are traced,
/// and who gets their spans.
///
/// ```
/// use std::time::Duration;
///
/// use shaddock::Traces;
///
/// let traces = Traces::new()
///     .environment()
///     .endpoint("https://collector.game.example:4318")
///     .ca_file("/etc/shaddock/ca.pem")
///     .header("authorization", "Bearer t0p5ecret")
///     .timeout(Duration::from_secs(2))
///     .retry_within(Duration::from_secs(10))
///     .sample(100)
///     .service("connector")
///     .attribute("deployment.environment.name", "production");
/// ```
#[derive(Clone, Default)]
pub struct Traces {
    endpoint: Option<String>,
    sample: Option<u64>,
    service: Option<String>,
    attributes: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    ca_file: Option<PathBuf>,
    timeout: Option<Duration>,
    retry_within: Option<Duration>,
    environment: Environment,
}

/// The collector where nobody names one: on this machine.
const ENDPOINT: &str = "http://127.0.0.1:4318";
/// The path of traces behind an endpoint.
const PATH: &str = "v1/traces";
/// One message in so many is traced where nobody says how many.
const SAMPLE: u64 = 1000;
const SERVICE: &str = "shaddock";

/// The outcome of the options.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) url: String,
    /// One message in so many; none where none is traced.
    pub(super) every: Option<u64>,
    /// Members of the resource, the service's name among them.
    pub(super) attributes: Vec<(String, String)>,
    pub(super) headers: Vec<(String, String)>,
    /// The authorities that are trusted, instead of the system's.
    pub(super) authorities: Option<Vec<CertificateDer<'static>>>,
    pub(super) timeout: Duration,
    pub(super) retry_within: Duration,
}

impl std::fmt::Debug for Traces {
    /// Without the values of headers, which may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Traces")
            .field("sample", &self.sample)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

impl Traces {
    /// One in 1,000 messages, for a collector at `http://127.0.0.1:4318`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what is not set here from OpenTelemetry's variables of the environment, as they are
    /// now: `OTEL_SDK_DISABLED`, `OTEL_TRACES_EXPORTER`, `OTEL_EXPORTER_OTLP_ENDPOINT`,
    /// `_CERTIFICATE`, `_HEADERS`, `_TIMEOUT` and `_PROTOCOL`, and the same with `_TRACES` behind
    /// `OTLP`, which come first, `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`,
    /// `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`. `OTEL_SDK_DISABLED=true` turns traces
    /// off whatever is set here.
    #[must_use]
    pub fn environment(mut self) -> Self {
        self.environment = Environment::read(|name| std::env::var_os(name));
        self
    }

    /// The collector, such as `http://127.0.0.1:4318`; `/v1/traces` is added to it. It is reached
    /// with TLS by `https://`; without it, headers and spans are for everybody on the way to read.
    #[must_use]
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Trusts the authorities of a file in PEM, and no others, where the collector is reached with
    /// TLS. Without it those count that the system trusts. It is read when the engine starts.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Traces one message in so many of those that are forwarded, at least 1; each shard counts
    /// its own.
    #[must_use]
    pub fn sample(mut self, one_in: u64) -> Self {
        self.sample = Some(one_in);
        self
    }

    /// The name of the service (`service.name`), `shaddock` by default.
    #[must_use]
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.service = Some(name.into());
        self
    }

    /// Adds an attribute of the resource, such as `deployment.environment.name`.
    #[must_use]
    pub fn attribute(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push((key.into(), value.into()));
        self
    }

    /// Adds a header of the requests to the collector, such as `authorization`.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The time in which the collector has to answer a request, 5 s by default and from 1 ms to
    /// 60 s; then it has failed. An engine that stops may have to wait for it.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The time in which spans are sent again to a collector that can't be reached, does not answer
    /// or answers 429, 502, 503 or 504: 30 s by default and 5 min at most, from the first request
    /// on; zero sends them once. Pauses grow from 1 s to 10 s, and are as long as `Retry-After`
    /// says, up to a minute. Spans that wait meanwhile are bounded; others are lost, and counted.
    #[must_use]
    pub fn retry_within(mut self, time: Duration) -> Self {
        self.retry_within = Some(time);
        self
    }

    /// Puts together the options and the environment.
    ///
    /// # Errors
    /// The first value that can't be used, by the name of its option or variable.
    pub(super) fn settings(&self) -> Result<Settings, StartError> {
        let environment = &self.environment;
        let every = match self.sample {
            Some(0) => return Err(bad("traces.sample", "a number of messages, at least 1")),
            Some(every) => Some(every),
            None => environment.every()?.unwrap_or(Some(SAMPLE)),
        };
        let every = every.filter(|_| environment.is_enabled());
        environment.check_exporter_and_protocol()?;
        let is_on = every.is_some() && !environment.has_no_exporter();
        let timeout = match self.timeout {
            Some(timeout) if timeout.as_millis() == 0 || timeout > ANSWER_TIME_MAX => {
                return Err(bad("traces.timeout", "from 1 ms to 60 s"));
            }
            Some(timeout) => timeout,
            None => environment.timeout(ANSWER_TIME_MAX)?.unwrap_or(ANSWER_TIME),
        };
        let retry_within = self.retry_within.unwrap_or(RETRY_TIME);
        if retry_within > RETRY_TIME_MAX {
            return Err(bad("traces.retry_within", "5 min at most"));
        }
        let url = self.url()?;
        Ok(Settings {
            authorities: if is_secured(&url) { self.authorities()? } else { None },
            url,
            every: every.filter(|_| is_on),
            attributes: self.attributes()?,
            headers: self.headers()?,
            timeout,
            retry_within,
        })
    }

    fn authorities(&self) -> Result<Option<Vec<CertificateDer<'static>>>, StartError> {
        let (option, path) = match (&self.ca_file, self.environment.ca_file()?) {
            (Some(path), _) => ("traces.ca_file", path.as_path()),
            (None, Some((name, path))) => (name, Path::new(path)),
            (None, None) => return Ok(None),
        };
        tls::authorities(path).map(Some).map_err(|why| {
            let path = path.display();
            bad(option, &format!("a file with certificates in PEM, which {path} is not: {why}"))
        })
    }

    fn url(&self) -> Result<String, StartError> {
        let base = |name, url: &str| -> Result<String, StartError> {
            let slash = if url.ends_with('/') { "" } else { "/" };
            check_url(name, url).map(|()| format!("{url}{slash}{PATH}"))
        };
        if let Some(url) = &self.endpoint {
            return base("traces.endpoint", url);
        }
        match self.environment.endpoint()? {
            None => base("traces.endpoint", ENDPOINT),
            Some((name @ environment::TRACES_ENDPOINT, url)) => {
                check_url(name, url).map(|()| url.to_owned())
            }
            Some((name, url)) => base(name, url),
        }
    }

    /// Attributes of the resource. An option comes last, and so wins over the environment.
    fn attributes(&self) -> Result<Vec<(String, String)>, StartError> {
        let (name, from_environment) = self.environment.attributes()?;
        let service = self.service.clone().or(name).unwrap_or_else(|| SERVICE.to_owned());
        if service.is_empty() {
            return Err(bad("traces.service", "a name that is not empty"));
        }
        let service = ("service.name".to_owned(), service);
        let mut all: Vec<(String, String)> = Vec::new();
        for (key, value) in from_environment.into_iter().chain(self.attributes.clone()) {
            all.retain(|(other, _)| *other != key);
            all.push((key, value));
        }
        all.retain(|(key, _)| *key != service.0);
        all.insert(0, service);
        Ok(all)
    }

    fn headers(&self) -> Result<Vec<(String, String)>, StartError> {
        let (variable, from_environment) = self.environment.headers()?;
        let own = self.headers.iter().cloned().map(|header| ("traces.header", header));
        let all = from_environment.into_iter().map(|header| (variable, header)).chain(own);
        all.map(|(option, (name, value))| {
            let is_good =
                name.parse::<HeaderName>().is_ok() && HeaderValue::from_str(&value).is_ok();
            let expected = "names and values of HTTP headers, in printable ASCII characters";
            if is_good { Ok((name, value)) } else { Err(bad(option, expected)) }
        })
        .collect()
    }
}

/// True if a URL, which has been checked, asks for TLS.
pub(super) fn is_secured(url: &str) -> bool {
    url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
}

/// Checks that a collector can be reached at a URL.
fn check_url(option: &'static str, url: &str) -> Result<(), StartError> {
    let expected = "a URL such as http://127.0.0.1:4318";
    let uri = url.parse::<Uri>().ok().filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
            && !uri.authority().is_some_and(|it| it.as_str().contains('@'))
    });
    uri.map(drop).ok_or_else(|| bad(option, expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Traces {
        let environment = Environment::read(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| value.into())
        });
        Traces { environment, ..Traces::new() }
    }

    fn every(variables: &[(&str, &str)]) -> Option<u64> {
        with(variables).settings().unwrap().every
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    #[test]
    fn defaults_are_those_of_the_docs() {
        let wanted = Settings {
            url: "http://127.0.0.1:4318/v1/traces".into(),
            every: Some(1000),
            attributes: pairs(&[("service.name", "shaddock")]),
            headers: Vec::new(),
            authorities: None,
            timeout: Duration::from_secs(5),
            retry_within: RETRY_TIME,
        };
        assert_eq!(Traces::new().settings().unwrap(), wanted);
        assert_eq!(with(&[("OTEL_SERVICE_NAME", "")]).settings().unwrap(), wanted, "as if unset");
    }

    #[test]
    fn the_environment_says_what_is_not_set() {
        let traces = with(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/base/"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20a%3D, x-team = game"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,region=eu%2C1,cell=7"),
            ("OTEL_SERVICE_NAME", "connector"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.01"),
        ]);
        let wanted = Settings {
            url: "http://collector:4318/base/v1/traces".into(),
            every: Some(100),
            attributes: pairs(&[("service.name", "connector"), ("region", "eu,1"), ("cell", "7")]),
            headers: pairs(&[("authorization", "Bearer a="), ("x-team", "game")]),
            authorities: None,
            timeout: Duration::from_millis(2500),
            retry_within: RETRY_TIME,
        };
        assert_eq!(traces.settings().unwrap(), wanted);
        let set = traces.endpoint("http://[::1]:1").sample(5).service("own").attribute("cell", "8");
        let settings = set.settings().unwrap();
        assert_eq!((&*settings.url, settings.every), ("http://[::1]:1/v1/traces", Some(5)));
        let wanted = [("service.name", "own"), ("region", "eu,1"), ("cell", "8")];
        assert_eq!(settings.attributes, pairs(&wanted));
    }

    #[test]
    fn what_is_said_of_traces_alone_comes_first_and_its_endpoint_is_whole() {
        let settings = with(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b:2/spans"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "b=2"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=from%20there"),
        ]);
        let settings = settings.settings().unwrap();
        assert_eq!(settings.url, "http://b:2/spans");
        assert_eq!(settings.headers, pairs(&[("b", "2")]));
        assert_eq!(settings.timeout, Duration::from_millis(2));
        assert_eq!(settings.attributes, pairs(&[("service.name", "from there")]));
    }

    #[test]
    fn files_of_authorities_are_read_for_tls_alone() {
        let none = "/nowhere/ca.pem";
        for name in ["OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE"] {
            let plain = with(&[(name, none)]).settings().unwrap();
            assert_eq!(plain.authorities, None);
            let secured = with(&[(name, none)]).endpoint("https://collector");
            let error = secured.settings().unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(none), "{error}");
            let error = secured.ca_file("/other.pem").settings().unwrap_err().to_string();
            assert!(error.contains("`traces.ca_file`") && error.contains("/other.pem"), "{error}");
        }
        // A file, but of no certificates.
        let secured = Traces::new().endpoint("HTTPS://collector").ca_file("Cargo.toml");
        let error = secured.settings().unwrap_err().to_string();
        assert!(error.contains("no certificate in PEM"), "{error}");
        let settings = Traces::new().endpoint("https://collector").settings().unwrap();
        assert_eq!((&*settings.url, settings.authorities), ("https://collector/v1/traces", None));
    }

    #[test]
    fn samplers_say_one_in_how_many() {
        for (sampler, argument, wanted) in [
            ("always_on", "", Some(1)),
            ("parentbased_always_on", "0.5", Some(1)),
            ("always_off", "", None),
            ("traceidratio", "1", Some(1)),
            ("traceidratio", "1.0", Some(1)),
            ("traceidratio", "0.3", Some(3)),
            ("traceidratio", "0.0001", Some(10_000)),
            ("traceidratio", "0", None),
            ("traceidratio", "", Some(1)),
        ] {
            let variables =
                [("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)];
            assert_eq!(every(&variables), wanted, "{sampler} {argument}");
        }
        for (name, value) in [
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_SDK_DISABLED", "TRUE"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ] {
            assert_eq!(with(&[(name, value)]).sample(1).settings().unwrap().every, None, "{name}");
        }
        assert_eq!(
            every(&[("OTEL_SDK_DISABLED", "false"), ("OTEL_TRACES_EXPORTER", "otlp")]),
            Some(1000)
        );
    }

    #[test]
    fn a_bad_value_is_told_by_its_name() {
        for (name, value, expected) in [
            ("OTEL_TRACES_SAMPLER", "jaeger_remote", "always_on"),
            ("OTEL_TRACES_SAMPLER_ARG", "2", "from 0 to 1"),
            ("OTEL_TRACES_SAMPLER_ARG", "NaN", "from 0 to 1"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", "http://127.0.0.1:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "5s", "milliseconds"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "60001", "milliseconds"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization", "name=value"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=secret%0A", "printable"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=%ff", "name=value"),
            ("OTEL_TRACES_EXPORTER", "zipkin", "otlp"),
            ("OTEL_SDK_DISABLED", "yes", "true"),
        ] {
            let sampler = ("OTEL_TRACES_SAMPLER", "traceidratio");
            let error = with(&[(name, value), sampler]).settings().unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(expected), "{name}={value}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let endpoints =
            ["http://", "ftp://a", "http://a/?b", "http://user:secret@a", "", "http://a b"];
        for endpoint in endpoints {
            let error = Traces::new().endpoint(endpoint).settings().unwrap_err().to_string();
            assert!(error.contains("`traces.endpoint` must be a URL"), "{endpoint}: {error}");
        }
        let error = Traces::new().sample(0).settings().unwrap_err().to_string();
        assert!(error.contains("`traces.sample` must be"), "{error}");
        let error = Traces::new().timeout(Duration::ZERO).settings().unwrap_err().to_string();
        assert!(error.contains("`traces.timeout` must be"), "{error}");
        let late = Traces::new().retry_within(Duration::from_secs(301));
        let error = late.settings().unwrap_err().to_string();
        assert!(error.contains("`traces.retry_within` must be"), "{error}");
        let error = Traces::new().header("a b", "c").settings().unwrap_err().to_string();
        assert!(error.contains("`traces.header` must be"), "{error}");
    }
}

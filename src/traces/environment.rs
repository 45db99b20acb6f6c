//! OpenTelemetry's variables of the environment.
//!
//! Their meanings are those of its specification: "Environment Variable Specification" and
//! "OpenTelemetry Protocol Exporter". A variable that is empty is as one that is not set.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::error::{EngineOption, StartError};

/// The variables, as they were when they were read.
#[derive(Clone, Default)]
pub(super) struct Environment(BTreeMap<&'static str, OsString>);

/// Names with values.
type Pairs = Vec<(String, String)>;

const DISABLED: &str = "OTEL_SDK_DISABLED";
const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
/// The only one whose value is the whole URL.
pub(super) const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
// Of two the one for traces alone comes first.
const ENDPOINTS: [&str; 2] = [TRACES_ENDPOINT, "OTEL_EXPORTER_OTLP_ENDPOINT"];
const HEADERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
const CERTIFICATES: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
const TIMEOUTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const SINGLE: [&str; 6] = [DISABLED, EXPORTER, SAMPLER, SAMPLER_ARG, SERVICE_NAME, ATTRIBUTES];

impl Environment {
    /// Reads all that are looked at here.
    pub(super) fn read(read: impl Fn(&str) -> Option<OsString>) -> Self {
        let pairs = [ENDPOINTS, HEADERS, CERTIFICATES, TIMEOUTS, PROTOCOLS];
        let names = SINGLE.into_iter().chain(pairs.into_iter().flatten());
        let set = names.filter_map(|name| Some((name, read(name).filter(|it| !it.is_empty())?)));
        Self(set.collect())
    }

    fn text(&self, name: &'static str) -> Result<Option<&str>, StartError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => value.to_str().map(Some).ok_or_else(|| bad(name, "text in UTF-8")),
        }
    }

    /// The first of two variables that is set.
    fn first(&self, names: [&'static str; 2]) -> Result<Option<(&'static str, &str)>, StartError> {
        for name in names {
            if let Some(value) = self.text(name)? {
                return Ok(Some((name, value)));
            }
        }
        Ok(None)
    }

    /// True unless all is turned off.
    pub(super) fn is_enabled(&self) -> bool {
        let disabled = self.text(DISABLED).ok().flatten();
        !disabled.is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// True if spans are to go nowhere.
    pub(super) fn has_no_exporter(&self) -> bool {
        self.text(EXPORTER).is_ok_and(|exporter| exporter == Some("none"))
    }

    pub(super) fn check_exporter_and_protocol(&self) -> Result<(), StartError> {
        let is_flag = |text: &str| ["true", "false"].iter().any(|it| text.eq_ignore_ascii_case(it));
        if self.text(DISABLED)?.is_some_and(|text| !is_flag(text)) {
            return Err(bad(DISABLED, "true or false"));
        }
        if !matches!(self.text(EXPORTER)?, None | Some("otlp" | "none")) {
            return Err(bad(EXPORTER, "otlp or none"));
        }
        match self.first(PROTOCOLS)? {
            None | Some((_, "http/protobuf")) => Ok(()),
            Some((name, _)) => Err(bad(
                name,
                "http/protobuf, the one that is spoken here, with an endpoint to match: \
                 collectors listen for it on port 4318",
            )),
        }
    }

    /// One message in so many as the sampler says, none where it takes none; nothing where no
    /// sampler is named.
    pub(super) fn every(&self) -> Result<Option<Option<u64>>, StartError> {
        let Some(sampler) = self.text(SAMPLER)? else { return Ok(None) };
        // Clients tell of no parent, so its decision is never there to go by.
        match sampler.strip_prefix("parentbased_").unwrap_or(sampler) {
            "always_on" => Ok(Some(Some(1))),
            "always_off" => Ok(Some(None)),
            "traceidratio" => {
                let ratio = match self.text(SAMPLER_ARG)? {
                    None => 1.0,
                    Some(text) => text
                        .parse::<f64>()
                        .ok()
                        .filter(|ratio| (0.0..=1.0).contains(ratio))
                        .ok_or_else(|| bad(SAMPLER_ARG, "a number from 0 to 1"))?,
                };
                // The conversion stops at the greatest number.
                Ok(Some((ratio > 0.0).then(|| (1.0 / ratio).round() as u64)))
            }
            _ => Err(bad(
                SAMPLER,
                "always_on, always_off or traceidratio, or one of these behind parentbased_",
            )),
        }
    }

    /// The collector's URL, and the variable that says it.
    pub(super) fn endpoint(&self) -> Result<Option<(&'static str, &str)>, StartError> {
        self.first(ENDPOINTS)
    }

    pub(super) fn timeout(&self, max: Duration) -> Result<Option<Duration>, StartError> {
        let Some((name, text)) = self.first(TIMEOUTS)? else { return Ok(None) };
        let timeout = text.parse().ok().map(Duration::from_millis);
        let timeout = timeout.filter(|timeout| !timeout.is_zero() && *timeout <= max);
        match timeout {
            Some(timeout) => Ok(Some(timeout)),
            None => Err(bad(name, "a number of milliseconds, from 1 to 60000")),
        }
    }

    /// The file with the certificates of authorities, and the variable that names it.
    pub(super) fn ca_file(&self) -> Result<Option<(&'static str, &str)>, StartError> {
        self.first(CERTIFICATES)
    }

    /// The headers of requests, and the variable that names them.
    pub(super) fn headers(&self) -> Result<(&'static str, Pairs), StartError> {
        match self.first(HEADERS)? {
            None => Ok((HEADERS[1], Pairs::new())),
            Some((name, text)) => Ok((name, pairs(name, text)?)),
        }
    }

    /// The name of the service, and the other attributes of the resource.
    pub(super) fn attributes(&self) -> Result<(Option<String>, Pairs), StartError> {
        let mut all = match self.text(ATTRIBUTES)? {
            None => Pairs::new(),
            Some(text) => pairs(ATTRIBUTES, text)?,
        };
        let named = all.extract_if(.., |(key, _)| key == "service.name").last();
        let service = self.text(SERVICE_NAME)?.map(str::to_owned);
        Ok((service.or_else(|| named.map(|(_, name)| name)), all))
    }
}

/// Reads `name=value,name=value`, with values that are percent-encoded.
fn pairs(variable: &'static str, text: &str) -> Result<Pairs, StartError> {
    let pair = |text: &str| {
        let (name, value) = text.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some((name.trim().to_owned(), value.into_owned())).filter(|(name, _)| !name.is_empty())
    };
    let parts = text.split(',').filter(|part| !part.trim().is_empty());
    parts.map(pair).collect::<Option<_>>().ok_or_else(|| {
        bad(variable, "a list of name=value with commas between, the values percent-encoded")
    })
}

/// The error of an option or a variable.
pub(super) fn bad(option: &'static str, expected: &str) -> StartError {
    StartError::Option { option: EngineOption::Traces(option), expected: expected.into() }
}

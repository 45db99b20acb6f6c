//! Hosts that may not connect, for a while or without an end.

use std::time::Duration;

use serde_json::{Value, json};

use super::bounds::{DENIED_SHOWN_MAX, DENY_TIME, DENY_TIME_MAX};
use super::http::{Request, Response};
use crate::dispatch::{DeniedHost, HostRule};
use crate::engine::Handle;
use crate::error::HandleError;

/// `/denied`: those that end first.
pub(super) fn list(handle: &Handle) -> Response {
    let hosts = handle.denied_hosts();
    let shown: Vec<Value> = hosts.iter().take(DENIED_SHOWN_MAX).map(shown).collect();
    Response::json(200, &json!({ "denied": shown, "all": hosts.len() }))
}

fn shown(host: &DeniedHost) -> Value {
    // None of it is left out before its end.
    let left = host.left.map(|left| left.as_millis().div_ceil(1_000) as u64);
    json!({ "address": host.rule.to_string(), "seconds": left })
}

/// `/deny`.
pub(super) fn deny(handle: &Handle, request: &Request) -> Response {
    let rule = match rule(request) {
        Ok(rule) => rule,
        Err(response) => return response,
    };
    let seconds = match request.parameter("seconds").map(str::parse::<u64>) {
        None => DENY_TIME.as_secs(),
        Some(Ok(seconds)) if (1..=DENY_TIME_MAX.as_secs()).contains(&seconds) => seconds,
        Some(_) => {
            let text =
                format!("seconds are 1 to {}; write more into the file", DENY_TIME_MAX.as_secs());
            return Response::error(400, &text);
        }
    };
    match handle.deny_hosts_for(&[rule], Duration::from_secs(seconds)) {
        Ok(()) => {
            tracing::info!(%rule, seconds, "a host is denied");
            Response::json(200, &json!({ "address": rule.to_string(), "seconds": seconds }))
        }
        Err(error) => failed(error),
    }
}

/// `/allow`.
pub(super) fn allow(handle: &Handle, request: &Request) -> Response {
    let rule = match rule(request) {
        Ok(rule) => rule,
        Err(response) => return response,
    };
    match handle.allow_hosts(&[rule]) {
        Ok(0) => {
            let text = format!("{rule} is not denied by itself; GET /denied lists what is");
            Response::error(404, &text)
        }
        Ok(_) => {
            tracing::info!(%rule, "a host is denied no longer");
            Response::json(200, &json!({ "address": rule.to_string(), "denied": false }))
        }
        Err(error) => failed(error),
    }
}

fn rule(request: &Request) -> Result<HostRule, Response> {
    let Some(text) = request.parameter("address") else {
        let text = "name the address, or a block of them: ?address=203.0.113.7";
        return Err(Response::error(400, text));
    };
    text.parse()
        .map_err(|error: crate::dispatch::HostFilterError| Response::error(400, &error.to_string()))
}

fn failed(error: HandleError) -> Response {
    let status = if error == HandleError::TooManyHosts { 409 } else { 503 };
    Response::error(status, &error.to_string())
}

//! The resources of the admin server, and what is done for those who ask for them.

use std::time::Duration;

use serde_json::json;

use super::arm::Wish;
use super::context::{Context, Drain};
use super::http::{Method, Request, Response};
use super::options::AdminOptions;
use super::status::{Backends, Status};
use super::walk::Walk;
use super::{hosts, metrics, page, recordings};
use crate::engine::{Drain as EngineDrain, Handle};
use crate::session::SessionId;

/// The way on for a request.
pub(super) enum Outcome {
    Answer(Response),
    Walk(Walk),
    Stream,
}

/// The methods that a resource has.
const READ: &[Method] = &[Method::Get, Method::Head];
const CHANGE: &[Method] = &[Method::Post];
const READ_OR_FORGET: &[Method] = &[Method::Get, Method::Head, Method::Delete];

/// The resources, for those who ask for none of them.
const INDEX: &str = "Shaddock's admin server.\n\n\
    GET  /              a page, for browsers\n\
    GET  /metrics       for Prometheus\n\
    GET  /livez         200 while every shard turns\n\
    GET  /readyz        200 while clients may be sent here\n\
    GET  /status        figures as JSON\n\
    GET  /backends      server types as JSON\n\
    GET  /sessions      ?sort= &limit= &offset= &after= &uid= &state= &search=\n\
    GET  /sessions/ID   one session\n\
    GET  /closed        sessions that have ended: ?reason= &uid= &id= &limit=\n\
    GET  /recordings    recordings of sessions\n\
    GET  /recordings/ID.txt  /recordings/ID.pcapng\n\
    GET  /events        figures each second (server-sent events)\n\
    POST /sessions/ID/kick   ?reason=\n\
    POST /uids/UID/kick      ?reason=\n\
     GET  /denied        hosts that may not connect\n\
     POST /sessions/ID/record  /uids/UID/record  /peers/IP/record\n\
     \u{20}     ?bodies=on &bytes= &seconds= &next=true\n\
     POST /recordings/ID/stop\n\
     DELETE /recordings/ID\n\
     POST /deny?address=&seconds=   /allow?address=\n\
     POST /drain      ?delay= &over= &within= &refuse_logins=\n\
     POST /undrain  /reload  /log?level=\n";

/// Answers a request that may be answered.
pub(super) fn handle(context: &mut Context<'_>, request: &Request) -> Outcome {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let methods = match path[..] {
        ["sessions", _, "kick"] | ["uids", _, "kick"] => CHANGE,
        ["sessions" | "uids" | "peers", _, "record"] | ["recordings", _, "stop"] => CHANGE,
        ["recordings", _] => READ_OR_FORGET,
        ["drain" | "undrain" | "reload" | "log" | "deny" | "allow"] => CHANGE,
        [] | ["sessions", _] | ["page", _] => READ,
        [
            "metrics" | "livez" | "readyz" | "status" | "backends" | "sessions" | "events"
            | "denied" | "closed" | "recordings",
        ] => READ,
        _ => {
            let text = "there is nothing by this path; GET / lists all there is";
            return Outcome::Answer(Response::error(404, text));
        }
    };
    if !methods.contains(&request.method) {
        return Outcome::Answer(wrong_method(methods));
    }
    match path[..] {
        ["events"] => Outcome::Stream,
        ["sessions"] => match Walk::list(request) {
            Ok(walk) => Outcome::Walk(walk),
            Err(response) => Outcome::Answer(response),
        },
        ["closed"] => match Walk::closed(request) {
            Ok(walk) => Outcome::Walk(walk),
            Err(response) => Outcome::Answer(response),
        },
        [kind, name, "record"] => match Wish::of((kind, name), request, context.secrets) {
            Ok(wish) => Outcome::Walk(Walk::record(wish)),
            Err(response) => Outcome::Answer(response),
        },
        ["sessions", id, ..] => match (SessionId::parse(id), methods) {
            (None, _) => {
                let text = "a session's id is as `/sessions` tells it, such as 0.17.3";
                Outcome::Answer(Response::error(404, text))
            }
            (Some(session), READ) => Outcome::Walk(Walk::show(session)),
            (Some(session), _) => Outcome::Walk(Walk::kick(session, reason(request))),
        },
        _ => Outcome::Answer(answer(context, &path, request)),
    }
}

fn answer(context: &mut Context<'_>, path: &[&str], request: &Request) -> Response {
    match *path {
        [] if request.accept.contains("text/html") => page::page(context, request),
        [] => Response::text(200, INDEX),
        ["page", name] => {
            page::file(name).unwrap_or_else(|| Response::error(404, "the page has no such file"))
        }
        ["metrics"] => {
            let (seen, now) = ((context.handle, context.samples), context.now);
            metrics::response(seen, context.own, &request.accept, now)
        }
        ["livez"] => alive(context),
        ["readyz"] => ready(context.handle),
        ["status"] => Response::json(200, &Status::new(context.handle, context.samples)),
        ["backends"] => {
            let types = context.handle.last_metrics().server_types;
            let types: Vec<_> = types.iter().map(Backends::of).collect();
            Response::json(200, &json!({ "backends": types }))
        }
        ["uids", uid, _] => match context.handle.kick(uid, reason(request).as_deref()) {
            Ok(()) => Response::json(202, &json!({ "uid": uid, "kick": "on its way" })),
            Err(error) => Response::error(503, &error.to_string()),
        },
        ["denied"] => hosts::list(context.handle),
        ["deny"] => hosts::deny(context.handle, request),
        ["allow"] => hosts::allow(context.handle, request),
        ["recordings"] => recordings::list(context.handle),
        ["recordings", id, _] => recordings::stop_named(context.handle, id),
        ["recordings", name] => recordings::one(context.handle, request.method, name),
        ["drain"] => drain(context, request),
        ["undrain"] => undrain(context),
        ["reload"] => match &context.options.on_reload {
            Some(reload) => {
                reload();
                Response::json(202, &json!({ "reload": "asked for; the log tells the outcome" }))
            }
            None => Response::error(501, "this process has no configuration to read again"),
        },
        _ => log_level(context.options, request),
    }
}

fn wrong_method(methods: &[Method]) -> Response {
    let (allow, text) = if methods == READ {
        ("GET, HEAD", "ask for this with GET")
    } else if methods == READ_OR_FORGET {
        ("GET, HEAD, DELETE", "ask for this with GET, or DELETE it")
    } else {
        ("POST", "this changes something: send it with POST")
    };
    Response::error(405, text).with_header("Allow", allow)
}

fn reason(request: &Request) -> Option<String> {
    request.parameter("reason").map(str::to_owned)
}

fn alive(context: &Context<'_>) -> Response {
    if let Some(failure) = context.handle.failure() {
        return Response::text(503, format!("the engine has failed: {failure}\n"));
    }
    let stuck: String =
        context.samples.stuck(context.now).map(|shard| format!("shard {shard} hangs\n")).collect();
    match stuck.is_empty() {
        true => Response::text(200, "ok\n"),
        false => Response::text(503, stuck),
    }
}

fn ready(handle: &Handle) -> Response {
    let reasons = handle.unready();
    match reasons.is_empty() {
        true => Response::text(200, "ok\n"),
        false => Response::text(503, reasons.join("\n") + "\n"),
    }
}

fn drain(context: &mut Context<'_>, request: &Request) -> Response {
    let Some((drain, _)) = &context.options.on_drain else {
        context.handle.set_draining(true);
        let nobody = None::<f64>;
        return Response::json(202, &json!({ "draining": true, "stops_in_s": nobody }));
    };
    let drain = match drain_of(*drain, request) {
        Ok(drain) => drain,
        Err(error) => return Response::error(400, &error),
    };
    if context.handle.drain(drain).is_err() {
        return Response::error(409, "the engine stops already");
    }
    if *context.drain == Drain::No {
        *context.drain = Drain::Asked;
    }
    // Another one may be under way.
    let times = context.handle.drain_times().unwrap_or_default();
    let [begins, closed, ends] = times.map(|time| time.as_secs_f64());
    let body = json!({
        "draining": true, "stops_in_s": begins, "closed_in_s": closed, "ends_in_s": ends,
    });
    Response::json(202, &body)
}

/// The drain that a request's parameters make of the one that is set.
fn drain_of(drain: EngineDrain, request: &Request) -> Result<EngineDrain, String> {
    let time = |name, otherwise| match request.parameter(name) {
        None => Ok(otherwise),
        Some(text) => duration(text).ok_or_else(|| {
            format!("`{name}` is a time such as 500ms, 30s, 5m or 1h, a day at the most")
        }),
    };
    let within = time("within", drain.within)?;
    let (delay, over) = (time("delay", drain.delay)?, time("over", drain.over)?);
    let refuses = match request.parameter("refuse_logins") {
        None => drain.refuses_logins,
        Some("true") => true,
        Some("false") => false,
        Some(_) => return Err("`refuse_logins` is true or false".to_owned()),
    };
    let known = ["within", "delay", "over", "refuse_logins"];
    if let Some(name) = request.parameters().find(|name| !known.contains(name)) {
        return Err(format!("there is no parameter `{name}`, but {}", known.join(", ")));
    }
    let drain = EngineDrain::within(within).delay(delay).over(over);
    Ok(if refuses { drain.refuse_logins() } else { drain })
}

/// The longest time that may be asked for.
const TIME_MAX: Duration = Duration::from_secs(24 * 3_600);

/// A time as text, of whole units.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let count: u64 = count.parse().ok()?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let time = Duration::from_millis(count.checked_mul(ms)?);
    (time <= TIME_MAX).then_some(time)
}

fn undrain(context: &mut Context<'_>) -> Response {
    if !context.handle.undrain() {
        return Response::error(
            409,
            "sessions are closed already; start it again once it has ended",
        );
    }
    *context.drain = Drain::No;
    Response::json(200, &json!({ "draining": false }))
}

fn log_level(options: &AdminOptions, request: &Request) -> Response {
    let Some(set) = &options.on_log_level else {
        return Response::error(501, "this process has no log whose level can be changed");
    };
    let Some(level) = request.parameter("level") else {
        return Response::error(400, "name the level: /log?level=info");
    };
    match set(level) {
        Ok(()) => Response::json(200, &json!({ "level": level })),
        Err(error) => Response::error(400, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_whole_units_and_bounded() {
        for (text, ms) in [("0s", 0), ("1500ms", 1_500), ("2m", 120_000), ("24h", 86_400_000)] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1.5s", "25h", "99999999999999999999s", "1 s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}

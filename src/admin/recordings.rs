//! Recordings as they are read.

use serde_json::{Value, json};

use super::http::{Method, Response};
use super::{pcapng, transcript};
use crate::engine::Handle;
use crate::record::{Recording, State};

/// All recordings.
pub(super) fn list(handle: &Handle) -> Response {
    let now_us = handle.recorder_now_us();
    let all: Vec<_> = handle.recorder().list().iter().map(|it| describe(it, now_us)).collect();
    Response::json(200, &json!({ "recordings": all }))
}

/// One recording: described, or as `.txt` or `.pcapng` what is in it. DELETE forgets it.
pub(super) fn one(handle: &Handle, method: Method, name: &str) -> Response {
    let (id, format) = name.split_once('.').unwrap_or((name, ""));
    let Ok(id) = id.parse() else { return missing() };
    if method == Method::Delete {
        return stop(handle, id, false);
    }
    let Some(recording) = handle.recorder().find(id) else { return missing() };
    let now_us = handle.recorder_now_us();
    match format {
        "" => Response::json(200, &describe(&recording, now_us)),
        "txt" => Response::text(200, transcript::of(&recording, now_us)).large(),
        "pcapng" => {
            let snapshot = recording.snapshot(now_us);
            let listener = snapshot.session.as_ref().map_or(0, |session| session.listener);
            let local = handle.recorder().address(listener);
            let body = pcapng::of(&snapshot, local);
            Response::of(200, "application/x-pcapng", body).large()
        }
        _ => missing(),
    }
}

/// Ends a recording by its id's text, and keeps it.
pub(super) fn stop_named(handle: &Handle, id: &str) -> Response {
    id.parse().map_or_else(|_| missing(), |id| stop(handle, id, true))
}

fn stop(handle: &Handle, id: u32, is_kept: bool) -> Response {
    let now_us = handle.recorder_now_us();
    let Some(recording) = handle.recorder().stop(id, is_kept) else { return missing() };
    if let Some(session) = recording.extent(now_us).session {
        // If the shard is too busy to hear of it, it finds out by the next bytes.
        handle.stop_recording(session.id).ok();
    }
    Response::json(200, &describe(&recording, now_us))
}

fn missing() -> Response {
    let text = "there is no such recording; /recordings lists them, each with .txt and .pcapng";
    Response::error(404, text)
}

/// A recording without what is in it.
pub(super) fn describe(recording: &Recording, now_us: u64) -> Value {
    let extent = recording.extent(now_us);
    let (state, over) = match extent.state {
        State::Waiting => ("waiting", None),
        State::Recording => ("recording", None),
        State::Over(reason) => ("over", Some(reason)),
    };
    json!({
        "id": recording.id,
        "of": recording.target.to_string(),
        "state": state,
        "over": over,
        "bodies": if recording.options.has_bodies { "on" } else { "headers" },
        "seconds": recording.options.seconds,
        "bytes_max": recording.options.bytes_max,
        "bytes": extent.bytes,
        "records": extent.records,
        "lost": extent.lost,
        "armed_unix_ms": recording.armed_us / 1000,
        "session": extent.session,
    })
}

//! The JSON inside the packets: calls and answers (docs/protocol/rpc.md, "Payload").
//!
//! ```text
//! call:    {"id":N,"msg":{"namespace":"sys","serverType":T,"service":S,"method":M,"args":[...]}}
//! answer:  {"id":N,"resp":[error, value, ...]}
//! ```
//! Either may come alone or as an array of several, as the sender likes. Bodies are looked at only
//! as far as it takes to know that they are whole JSON values, and copied as they stand.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::session::SessionData;
use crate::span::SpanContext;
use crate::wire::number::push_integer;
use crate::wire::truthy::is_truthy;

/// The topic of every packet between servers.
pub(crate) const TOPIC: &str = "rpc";

/// A client's message, as a backend gets it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    /// The client's request id; 0 for a notify.
    pub(crate) id: u32,
    pub(crate) route: &'a str,
    /// Any bytes; see [`spliced`].
    pub(crate) body: &'a [u8],
    /// Its span, if it is sampled.
    pub(crate) span: Option<&'a SpanContext>,
}

/// Appends a call of `sys.msgRemote.forwardMessage`. `session` is JSON from [`export`].
///
/// `compressRoute` is 0 however the route came: it has been expanded, and no backend looks at it.
pub(crate) fn encode_forward(
    id: u64,
    server_type: &str,
    message: &Message<'_>,
    session: &[u8],
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"id\":");
    push_integer(id, out);
    out.extend_from_slice(b",\"msg\":{\"namespace\":\"sys\",\"serverType\":");
    push_text(server_type, out);
    out.extend_from_slice(
        b",\"service\":\"msgRemote\",\"method\":\"forwardMessage\",\"args\":[{\"id\":",
    );
    push_integer(message.id.into(), out);
    out.extend_from_slice(match message.id {
        0 => b",\"type\":1,\"compressRoute\":0,\"route\":",
        _ => b",\"type\":0,\"compressRoute\":0,\"route\":",
    });
    push_text(message.route, out);
    out.extend_from_slice(b",\"body\":");
    out.extend_from_slice(&spliced(message.body));
    out.extend_from_slice(b",\"compressGzip\":0},");
    out.extend_from_slice(session);
    if let Some(span) = message.span {
        push_traceparent(span, out);
    }
    out.extend_from_slice(b"]}}");
}

/// Adds the member `traceparent` to the session that stands at the end. A `BackendSession` takes
/// all members over, and gives none back but those it knows (`lib/common/service/
/// backendSessionService.js` of pomelo 2.2.7): so handlers see it, and it goes no further.
#[cold]
fn push_traceparent(span: &SpanContext, out: &mut Vec<u8>) {
    debug_assert!(out.ends_with(b"}"), "a session is an object");
    out.pop();
    out.extend_from_slice(b",\"traceparent\":\"");
    out.extend_from_slice(span.traceparent().as_bytes());
    out.extend_from_slice(b"\"}");
}

/// Appends a call of a remote that the game has written: `user.<service>.<method>`.
pub(crate) fn encode_user_call(id: u64, remote: &RemoteName, args: &[Value], out: &mut Vec<u8>) {
    let call = serde_json::json!({
        "id": id,
        "msg": {
            "namespace": "user",
            "serverType": remote.server_type,
            "service": remote.service,
            "method": remote.method,
            "args": args,
        },
    });
    push_json(&call, out);
}

/// A remote of the game's: `serverType.service.method`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteName {
    pub(crate) server_type: String,
    pub(crate) service: String,
    pub(crate) method: String,
}

impl RemoteName {
    /// Takes a name apart; `None` unless it has three parts, none of them empty.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.split('.').collect();
        let &[server_type, service, method] = &parts[..] else { return None };
        (!parts.contains(&"")).then(|| Self {
            server_type: server_type.into(),
            service: service.into(),
            method: method.into(),
        })
    }
}

/// A session as backends are told of it: `{"id","frontendId","uid","settings"}`.
pub(crate) fn export(data: &SessionData, frontend_id: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    out.extend_from_slice(b"{\"id\":");
    push_integer(data.number, &mut out);
    out.extend_from_slice(b",\"frontendId\":");
    push_text(frontend_id, &mut out);
    out.extend_from_slice(b",\"uid\":");
    push_json(&data.uid, &mut out);
    out.extend_from_slice(b",\"settings\":");
    push_json(&data.settings, &mut out);
    out.push(b'}');
    out
}

/// Nesting that a JavaScript engine is sure to survive when it writes JSON. Pomelo parses and
/// writes each body several times, so one that breaks it would take others along.
pub(crate) const DEPTH_MAX: usize = 512;

/// A client's body as it may stand inside a packet: itself if it is one JSON value, and `{}`
/// where the original's parser gives up, or where it is nested deeper than [`DEPTH_MAX`]. Bytes
/// that are no UTF-8 are read as JavaScript reads them.
pub(crate) fn spliced(body: &[u8]) -> Cow<'_, [u8]> {
    const NOTHING: &[u8] = b"{}";
    if body == NOTHING {
        return NOTHING.into();
    }
    match std::str::from_utf8(body) {
        Ok(text) if is_json(text) => body.into(),
        Ok(_) => NOTHING.into(),
        Err(_) => match String::from_utf8_lossy(body).into_owned() {
            text if is_json(&text) => text.into_bytes().into(),
            _ => NOTHING.into(),
        },
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok() && is_shallow(text.as_bytes())
}

/// True if JSON text is nested no deeper than [`DEPTH_MAX`].
fn is_shallow(text: &[u8]) -> bool {
    let openers = text.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    if openers <= DEPTH_MAX {
        return true;
    }
    let (mut depth, mut is_text, mut is_escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'[' | b'{' if !is_text => depth += 1,
            b']' | b'}' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return false;
        }
    }
    true
}

/// An answer to one of our calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    pub(crate) id: u64,
    /// Set where the first element is something that JavaScript takes for true.
    pub(crate) failed: bool,
    /// The second element's text.
    pub(crate) body: Option<&'a str>,
}

/// Shows each answer in a payload. What is none is passed over and counted in the result.
pub(crate) fn decode_answers<'a>(payload: &'a [u8], mut each: impl FnMut(Answer<'a>)) -> usize {
    let mut bad = 0;
    for_each(payload, |one| match one.and_then(serde_json::from_str::<RawAnswer<'a>>) {
        Ok(RawAnswer { id: Some(id), resp }) => {
            each(Answer { id, failed: resp.failed, body: resp.body });
        }
        // A malformed call is answered without an id; ours are not malformed.
        Ok(RawAnswer { id: None, .. }) | Err(_) => bad += 1,
    });
    bad
}

#[derive(Deserialize)]
struct RawAnswer<'a> {
    id: Option<u64>,
    #[serde(borrow)]
    resp: Response<'a>,
}

struct Response<'a> {
    failed: bool,
    body: Option<&'a str>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Response<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ResponseVisitor)
    }
}

struct ResponseVisitor;

impl<'de> Visitor<'de> for ResponseVisitor {
    type Value = Response<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the arguments of a callback")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut arguments: A) -> Result<Response<'de>, A::Error> {
        let error = arguments.next_element::<&'de RawValue>()?;
        let body = arguments.next_element::<&'de RawValue>()?;
        while arguments.next_element::<IgnoredAny>()?.is_some() {}
        let failed = error.is_some_and(|error| is_truthy_text(error.get()));
        Ok(Response { failed, body: body.map(RawValue::get) })
    }
}

/// True if JSON text is something that JavaScript takes for true.
fn is_truthy_text(text: &str) -> bool {
    match text.as_bytes().first() {
        Some(b'{' | b'[' | b't') => true,
        Some(b'"') => text != "\"\"",
        Some(b'0'..=b'9' | b'-') => {
            serde_json::from_str::<Value>(text).is_ok_and(|number| is_truthy(&number))
        }
        _ => false,
    }
}

/// A call of one of our remotes.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// The id that the caller knows it by; none if it is no number of ours.
    pub(crate) id: Option<u64>,
    pub(crate) call: Result<Call<'a>, NoCall>,
}

/// The remote that it calls, and the arguments.
#[derive(Debug, Deserialize)]
pub(crate) struct Call<'a> {
    #[serde(borrow, default)]
    pub(crate) namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) service: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) method: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "first_args")]
    pub(crate) args: Vec<&'a RawValue>,
}

/// Arguments of a call that are looked at; no remote here has as many.
const ARGS_MAX: usize = 8;

/// The first arguments, so that a list of millions takes no memory.
fn first_args<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<&'a RawValue>, D::Error> {
    let mut args = Vec::new();
    deserializer.deserialize_seq(ForEach(|arg| {
        if args.len() < ARGS_MAX {
            args.push(arg);
        }
        Ok(())
    }))?;
    Ok(args)
}

/// Shows each element of an array, until one is refused.
struct ForEach<F>(F);

impl<'de, F> Visitor<'de> for ForEach<F>
where
    F: FnMut(&'de RawValue) -> Result<(), &'static str>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element()? {
            self.0(element).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}

/// Takes an array apart of at most `len_max` elements; why not, where it can't be.
pub(crate) fn elements(text: &str, len_max: usize) -> Result<Vec<Value>, &'static str> {
    let (mut all, mut is_too_long) = (Vec::new(), false);
    let read =
        serde_json::Deserializer::from_str(text).deserialize_seq(ForEach(|element: &RawValue| {
            is_too_long = all.len() >= len_max;
            if is_too_long {
                return Err("too long");
            }
            // Numbers may be out of range.
            all.push(serde_json::from_str(element.get()).unwrap_or_default());
            Ok(())
        }));
    match read {
        Ok(()) => Ok(all),
        Err(_) if is_too_long => Err("too many uids"),
        Err(_) => Err("uids are no array"),
    }
}

/// Something that is no call (made by a backend).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoCall;

/// Shows each call in a payload.
pub(crate) fn decode_requests<'a>(payload: &'a [u8], mut each: impl FnMut(Request<'a>)) {
    for_each(payload, |one| {
        each(match one.and_then(serde_json::from_str::<RawRequest<'a>>) {
            Ok(RawRequest { id, msg }) => Request {
                id: id.and_then(|id| serde_json::from_str(id.get()).ok()),
                call: msg.and_then(|msg| serde_json::from_str(msg.get()).ok()).ok_or(NoCall),
            },
            Err(_) => Request { id: None, call: Err(NoCall) },
        });
    });
}

#[derive(Deserialize)]
struct RawRequest<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    msg: Option<&'a RawValue>,
}

/// Shows a payload, or each element of one that is an array.
fn for_each<'a>(payload: &'a [u8], mut each: impl FnMut(serde_json::Result<&'a str>)) {
    let text = match std::str::from_utf8(payload) {
        Ok(text) => text,
        Err(error) => return each(Err(serde::de::Error::custom(error))),
    };
    if !text.trim_ascii_start().starts_with('[') {
        return each(Ok(text));
    }
    // Looked at as a whole first, as the original does, and then one by one: a list of all would
    // take many times the memory of its text.
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        return each(Err(error));
    }
    let shown =
        serde_json::Deserializer::from_str(text).deserialize_seq(ForEach(|one: &'a RawValue| {
            each(Ok(one.get()));
            Ok(())
        }));
    debug_assert!(shown.is_ok(), "it has been read before");
}

/// Appends an answer; `values` appends what the callback is called with.
pub(crate) fn encode_answer(id: Option<u64>, out: &mut Vec<u8>, values: impl FnOnce(&mut Vec<u8>)) {
    match id {
        Some(id) => {
            out.extend_from_slice(b"{\"id\":");
            push_integer(id, out);
            out.extend_from_slice(b",\"resp\":[");
        }
        None => out.extend_from_slice(b"{\"resp\":["),
    }
    values(out);
    out.extend_from_slice(b"]}");
}

/// Appends an error as JavaScript's own come over the wire. Whoever gets it logs its `stack`.
pub(crate) fn push_error(text: &dyn fmt::Display, out: &mut Vec<u8>) {
    push_json(&serde_json::json!({ "stack": format!("Error: {text}\n    at shaddock") }), out);
}

/// Appends a value as JSON.
pub(crate) fn push_json(value: &impl serde::Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("a vector takes all, and keys here are text");
}

/// Appends text as JSON.
fn push_text(text: &str, out: &mut Vec<u8>) {
    let is_plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        push_json(&text, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_spliced_if_they_are_json() {
        let deep = format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        let brackets = format!("[\"{}\\\"{}\"]", "[".repeat(600), "{".repeat(600));
        for body in [
            "{}",
            "null",
            " [1, 2]\n",
            "\"\\ud800\"",
            "1e400",
            "-0",
            "{\"a\":1,\"a\":2}",
            &deep,
            &brackets,
        ] {
            assert_eq!(spliced(body.as_bytes()), body.as_bytes());
        }
        let deeper = format!("[{deep}]");
        for body in ["", "{\"a\":", "{} {}", "{},\"x\":{}", "}", "'a'", "01", "NaN", &deeper] {
            assert_eq!(&*spliced(body.as_bytes()), b"{}", "{body}");
        }
        assert_eq!(&*spliced(b"\"\xff\""), "\"\u{fffd}\"".as_bytes());
        assert_eq!(&*spliced(b"\xff"), b"{}");
    }

    #[test]
    fn texts_and_numbers_are_those_of_serde_json() {
        for text in ["", "chat", "a\"b\\c\u{1}", "中🎈"] {
            let mut out = Vec::new();
            push_text(text, &mut out);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
        for number in [0, 9, 10, 1 << 53, u64::MAX] {
            let mut out = Vec::new();
            push_integer(number, &mut out);
            assert_eq!(out, number.to_string().into_bytes());
        }
    }

    #[test]
    fn garbage_among_answers_is_passed_over() {
        let decode = |payload: &str| {
            let mut ids = Vec::new();
            let bad = decode_answers(payload.as_bytes(), |answer| ids.push(answer.id));
            (ids, bad)
        };
        assert_eq!(
            decode("[{\"id\":1,\"resp\":[]},7,{\"id\":2,\"resp\":[null]}]"),
            (vec![1, 2], 1)
        );
        for bad in ["", "{", "[", "7", "{\"id\":1}", "{\"id\":-1,\"resp\":[]}", "{\"resp\":[{}]}"] {
            assert_eq!(decode(bad), (vec![], 1), "{bad}");
        }
        assert_eq!(decode("[]"), (vec![], 0));
    }

    #[test]
    fn the_first_element_tells_whether_it_failed() {
        for (text, failed) in [
            ("null", false),
            ("0", false),
            ("-0.0", false),
            ("\"\"", false),
            ("false", false),
            ("{}", true),
            ("[]", true),
            ("true", true),
            ("\"a\"", true),
            ("0.5", true),
            ("-1", true),
        ] {
            let payload = format!("{{\"id\":1,\"resp\":[ {text} , 5]}}");
            let mut answers = Vec::new();
            assert_eq!(decode_answers(payload.as_bytes(), |answer| answers.push(answer)), 0);
            assert_eq!(answers, [Answer { id: 1, failed, body: Some("5") }], "{text}");
        }
    }

    #[test]
    fn what_is_no_call_keeps_its_id() {
        let decode = |payload: &str| {
            let mut all = Vec::new();
            decode_requests(payload.as_bytes(), |one| all.push((one.id, one.call.is_ok())));
            all
        };
        assert_eq!(decode("{\"id\":3,\"msg\":7}"), [(Some(3), false)]);
        assert_eq!(decode("{\"id\":3}"), [(Some(3), false)]);
        assert_eq!(decode("{\"id\":\"x\",\"msg\":{}}"), [(None, true)]);
        assert_eq!(decode("{"), [(None, false)]);
        assert_eq!(decode("[{\"id\":1,\"msg\":{}},2]"), [(Some(1), true), (None, false)]);
    }

    #[test]
    fn remotes_have_three_parts() {
        let name = RemoteName::parse("chat.chatRemote.drop").unwrap();
        assert_eq!(
            (&*name.server_type, &*name.service, &*name.method),
            ("chat", "chatRemote", "drop")
        );
        for bad in ["", "chat", "chat.drop", "a.b.c.d", "..", "a..c", "a..b.c"] {
            assert_eq!(RemoteName::parse(bad), None, "{bad}");
        }
    }
}

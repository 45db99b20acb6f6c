//! The part of a package that may be kept: never a secret, as far as it is known for one.
//!
//! Bodies that are no JSON are not kept, as there is no telling what is in them, nor are those of
//! routes that log somebody in. In other JSON the value of a secret's name is covered by as many
//! asterisks, so that lengths stay what they are, and so is a text that has a secret's form
//! ([`texts`](super::texts)). A secret that has neither, of a route of another name, is not known
//! for one.

use rustc_hash::FxHashSet;

use super::options::RecordOptions;
use super::recording::RecordKind;
use super::secrets::{Secrets, push_plain};
use super::tap::Cut;
use super::texts;
use crate::limits::turn::REDACTED_PER_TURN;
use crate::wire::message::{self, MessageType, RouteRef};
use crate::wire::package::PackageType;

/// Members of a body that are looked at; what is behind them is not kept.
const MEMBERS_MAX: usize = 1_024;
/// Requests of a session whose answers are secret; more of them make all answers so.
const SECRET_REQUESTS_MAX: usize = 256;

/// Takes out what may not be kept, for all recorded sessions of a shard.
#[derive(Debug, Default)]
pub(crate) struct Redactor {
    /// Bytes of bodies that may yet be looked at in this turn.
    left: usize,
    /// Memory for a name as it is compared.
    name: String,
}

/// The requests of one session whose answers are secret.
#[derive(Debug, Default)]
pub(crate) struct SecretRequests {
    ids: FxHashSet<u32>,
    are_all: bool,
}

impl SecretRequests {
    fn add(&mut self, id: u32) {
        if self.ids.len() < SECRET_REQUESTS_MAX {
            self.ids.insert(id);
        } else {
            self.are_all = true;
        }
    }

    fn take(&mut self, id: u32) -> bool {
        self.ids.remove(&id) || self.are_all
    }
}

impl Redactor {
    pub(crate) fn begin_turn(&mut self) {
        self.left = REDACTED_PER_TURN;
    }

    /// Takes out of the beginning of a body what may not be kept. `route` is what the message's
    /// code stands for.
    pub(crate) fn redact(
        &mut self,
        cut: &mut Cut,
        route: Option<&str>,
        requests: &mut SecretRequests,
        options: &RecordOptions,
    ) {
        let RecordKind::Package(kind) = cut.kind else { return };
        let is_whole = cut.kept.len() == cut.len;
        let (head_len, is_hidden) = match kind {
            PackageType::Data => match message::decode(&cut.kept) {
                Ok(message) => {
                    let head_len = cut.kept.len() - message.body.len();
                    let is_hidden = !options.has_bodies
                        || self.is_secret(&message, route, requests, &options.secrets)
                        || message.gzip;
                    (head_len, is_hidden)
                }
                Err(_) => (cut.kept.len().min(1), true),
            },
            _ => (0, !options.has_bodies),
        };
        let body = &mut cut.kept[head_len..];
        let is_kept = !is_hidden && self.may_look_at(body.len()) && is_json(body, is_whole);
        if !is_kept {
            return cut.kept.truncate(head_len);
        }
        let is_handshake = kind == PackageType::Handshake;
        let (secrets, name) = (&*options.secrets, &mut self.name);
        let mut cover = Cover { is_handshake, secrets, name, members_left: MEMBERS_MAX };
        let len = cover.cover_secrets(body);
        cut.kept.truncate(head_len + len);
    }

    /// True if the turn has time for so many bytes.
    fn may_look_at(&mut self, len: usize) -> bool {
        let left = self.left.checked_sub(len);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    /// True if a message's body is secret by its route. The answer to a request is, too.
    fn is_secret(
        &mut self,
        message: &message::Message<'_>,
        route: Option<&str>,
        requests: &mut SecretRequests,
        secrets: &Secrets,
    ) -> bool {
        if message.kind == MessageType::Response {
            return requests.take(message.id);
        }
        let text = match (route, message.route) {
            (Some(route), _) => route.as_bytes(),
            (None, Some(RouteRef::Text(text))) => text,
            // Nobody knows what it is.
            (None, _) => return true,
        };
        let is_secret = self.is_secret_route(text, secrets);
        if is_secret && message.kind == MessageType::Request {
            requests.add(message.id);
        }
        is_secret
    }

    fn is_secret_route(&mut self, text: &[u8], secrets: &Secrets) -> bool {
        let method = text.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
        let mut is_any = |text: &[u8], is_one: &dyn Fn(&str) -> bool| {
            self.name.clear();
            text.utf8_chunks().for_each(|chunk| push_plain(&mut self.name, chunk.valid()));
            is_one(&self.name)
        };
        is_any(method, &|method| secrets.has_method(method))
            || is_any(text, &|route| secrets.has_route(route))
    }
}

/// True if bytes are JSON, or its beginning. Of what is cut off only objects and lists count, as a
/// text's quotation mark may begin other formats.
fn is_json(body: &[u8], is_whole: bool) -> bool {
    if is_whole {
        return serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
    }
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let is_text = match std::str::from_utf8(body) {
        Ok(_) => true,
        // Cut within a character.
        Err(error) => error.error_len().is_none(),
    };
    is_text && matches!(first, Some(b'{' | b'['))
}

/// One body that is being covered.
struct Cover<'a> {
    is_handshake: bool,
    secrets: &'a Secrets,
    name: &'a mut String,
    members_left: usize,
}

impl Cover<'_> {
    /// Covers the values of members whose names are secret, and texts that hold such members. The
    /// bytes up to which it has come, which is the end unless there are too many members.
    fn cover_secrets(&mut self, json: &mut [u8]) -> usize {
        let mut at = 0;
        while at < json.len() {
            if json[at] != b'"' {
                at += 1;
                continue;
            }
            let end = text_end(json, at);
            let colon = skip_space(json, end);
            if json.get(colon) != Some(&b':') {
                if !self.count() {
                    return at;
                }
                if self.holds_secret(&json[at..end]) {
                    cover(&mut json[at..end]);
                }
                at = end;
                continue;
            }
            if !self.count() {
                return at;
            }
            let value = skip_space(json, colon + 1);
            let is_covered = self.is_secret(&json[at..end]);
            at = value;
            if is_covered {
                at = value_end(json, value);
                cover(&mut json[value..at]);
            }
        }
        json.len()
    }

    fn count(&mut self) -> bool {
        let left = self.members_left.checked_sub(1);
        self.members_left = left.unwrap_or(0);
        left.is_some()
    }

    /// True if a text has the form of a secret, or is JSON within JSON that has one in it.
    fn holds_secret(&mut self, text: &[u8]) -> bool {
        if !text.contains(&b'\\') {
            let text = text.strip_prefix(b"\"").unwrap_or(text);
            let text = text.strip_suffix(b"\"").unwrap_or(text);
            return texts::are_secret(text, |name| self.is_secret_name(name));
        }
        // One that is cut off can't be read, so it counts as one.
        let Ok(inner) = serde_json::from_slice::<String>(text) else { return true };
        if texts::are_secret(inner.as_bytes(), |name| self.is_secret_name(name)) {
            return true;
        }
        let mut covered = inner.clone().into_bytes();
        let len = self.cover_secrets(&mut covered);
        len < covered.len() || covered != inner.as_bytes()
    }

    /// True if the name in quotation marks is a secret's.
    fn is_secret(&mut self, text: &[u8]) -> bool {
        match text.contains(&b'\\').then(|| serde_json::from_slice::<String>(text)) {
            Some(Ok(name)) => self.is_secret_name(name.as_bytes()),
            _ => self.is_secret_name(text),
        }
    }

    fn is_secret_name(&mut self, text: &[u8]) -> bool {
        self.name.clear();
        text.utf8_chunks().for_each(|chunk| push_plain(self.name, chunk.valid()));
        let name = self.name.as_str();
        self.is_handshake && name == "user" || self.secrets.has_name(name)
    }
}

fn skip_space(json: &[u8], from: usize) -> usize {
    let rest = json.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// The end of the text that begins there, behind its quotation mark.
fn text_end(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = json.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    json.len()
}

/// The end of the value that begins there; all of the rest where it is cut off.
fn value_end(json: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => at = text_end(json, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' | b',' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return at;
        }
    }
    json.len()
}

/// Writes a text of asterisks over a value.
fn cover(value: &mut [u8]) {
    match value {
        [] => {}
        [one] => *one = b'0',
        [first, between @ .., last] => {
            between.fill(b'*');
            (*first, *last) = (b'"', b'"');
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn options(has_bodies: bool) -> RecordOptions {
        let secrets = Secrets::new(&["phone_number".to_owned()], &["shop.pay".to_owned()]);
        let secrets = Arc::new(secrets);
        RecordOptions { bytes_max: 64 * 1024, has_bodies, seconds: 1, secrets }
    }

    /// The part kept of the beginning of a body of so many bytes.
    fn redacted(kind: PackageType, len: usize, kept: &[u8], has_bodies: bool) -> Vec<u8> {
        let mut redactor = Redactor::default();
        redactor.begin_turn();
        let mut cut = Cut { kind: RecordKind::Package(kind), len, kept: kept.to_vec() };
        redactor.redact(&mut cut, None, &mut SecretRequests::default(), &options(has_bodies));
        cut.kept
    }

    fn covered(text: &str) -> String {
        let kept = redacted(PackageType::Handshake, text.len(), text.as_bytes(), true);
        assert!(kept.len() == text.len() || kept.is_empty());
        String::from_utf8(kept).unwrap()
    }

    #[test]
    fn secrets_are_covered_wherever_they_stand() {
        let secret = "hunter2";
        for text in [
            json!({"sys": {"type": "js"}, "user": {"name": secret, "list": [secret]}}),
            json!({"user": secret, "a": 1}),
            json!([{"accessToken": secret}, {"PASS_WORD": [secret, {"a": secret}]}]),
            json!({"phoneNumber": secret}),
            json!({"inner": json!({"password": secret}).to_string()}),
            json!({"token": 1234567890.5, "x": "y\"z"}),
        ] {
            let text = text.to_string();
            let covered = covered(&text);
            assert!(!covered.contains(secret) && !covered.contains("1234567"), "{covered}");
            serde_json::from_str::<Value>(&covered).unwrap();
            for spaced in
                [text.replace(':', " :\n "), text.replacen("\"user\"", "\"\\u0075ser\"", 1)]
            {
                assert!(!self::covered(&spaced).contains(secret), "{spaced}");
            }
        }
        assert_eq!(covered(r#"{"a":1,"pwd":7,"b":[]}"#), r#"{"a":1,"pwd":0,"b":[]}"#);
        assert_eq!(covered(r#"{"a":"password","b":"x"}"#), r#"{"a":"password","b":"x"}"#);
    }

    #[test]
    fn what_is_cut_off_is_covered_to_its_end() {
        let text = br#"{"a":"b","token":{"x":"hunter2"},"c":"{\"pwd\":\"hunter2\"}"}"#;
        for end in 0..text.len() {
            let kept = redacted(PackageType::Kick, text.len(), &text[..end], true);
            let kept = String::from_utf8(kept).unwrap();
            assert!(!kept.contains("hunter2") && !kept.contains("unter"), "{kept}");
        }
    }

    #[test]
    fn what_is_no_json_and_what_nobody_asked_for_is_not_kept() {
        let message = |flag: u8, body: &[u8]| [&[flag, 7, 3], &b"a.b"[..], body].concat();
        for (kept, has_bodies, expected) in [
            (message(0, b"{\"a\":1}"), true, 13),
            (message(0, b"{\"a\":1}"), false, 6),
            (message(0, b"\x08\x96\x01"), true, 6),
            (message(0x10, b"{\"a\":1}"), true, 6),
            (b"\x0f".to_vec(), true, 1),
            (Vec::new(), true, 0),
        ] {
            let found = redacted(PackageType::Data, kept.len(), &kept, has_bodies);
            assert_eq!(found, &kept[..expected], "{kept:?}");
        }
        assert!(redacted(PackageType::Handshake, 3, b"\x78\x9c\x01", true).is_empty());
    }

    #[test]
    fn texts_of_a_secrets_form_are_covered_wherever_they_stand() {
        for text in [
            "Bearer hunter2.hunter2",
            "https://amy:hunter2@example.com/",
            "/play?room=1&access_token=hunter2",
            "Cookie: sid=hunter2",
        ] {
            for json in [
                json!({ "headers": ["seen", text] }).to_string(),
                json!({ "a": { "b": text }, "c": "seen" }).to_string().replace('/', "\\/"),
                json!([text, "seen", format!("[\"{text}\"]")]).to_string(),
            ] {
                let kept = covered(&json);
                assert!(!kept.contains("hunter2") && kept.contains("seen"), "{kept}");
            }
        }
        let chat = r#"{"text":"see https://example.com:80/a?b=c, or ask for it: now","n":[1]}"#;
        assert_eq!(covered(chat), chat);
    }

    /// A secret that has no name is known by the route alone.
    #[test]
    fn nothing_is_kept_of_what_logs_somebody_in_nor_of_the_answer() {
        let (mut redactor, mut requests) = (Redactor::default(), SecretRequests::default());
        redactor.begin_turn();
        let mut kept = |flag: u8, id: u8, route: &str, code: Option<&str>, body: &[u8]| {
            let is_request = flag & 0x0e == 0;
            let id: &[u8] = if is_request || flag & 0x0e == 4 { &[id] } else { &[] };
            let len = [route.len() as u8];
            let route = if flag & 0x0e == 4 { vec![] } else { [&len, route.as_bytes()].concat() };
            let kept = [&[flag][..], id, &route, body].concat();
            let kind = RecordKind::Package(PackageType::Data);
            let mut cut = Cut { kind, len: kept.len(), kept };
            redactor.redact(&mut cut, code, &mut requests, &options(true));
            String::from_utf8_lossy(&cut.kept).into_owned()
        };
        for (id, route) in [
            (1, "gate.gateHandler.Login"),
            (2, "connector.entryHandler.enter"),
            (3, "auth.play.check"),
            (4, "a.b.sign_in"),
            (5, "shop.pay.now"),
        ] {
            for body in [&b"\"hunter2\""[..], b"[\"amy\",\"hunter2\"]", b"{\"x\":[\"hunter2\"]}"] {
                for flag in [0, 2, 6] {
                    assert!(!kept(flag, id, route, None, body).contains("hunter2"), "{route}");
                }
            }
            assert!(!kept(4, id, "", None, b"\"hunter2\"").contains("hunter2"), "its answer");
            assert!(kept(4, id, "", None, b"\"seen\"").contains("seen"), "once");
        }
        let handler = "connector.entryHandler.hello";
        assert!(kept(0, 9, handler, None, b"[\"seen\"]").contains("seen"));
        assert!(!kept(0, 9, handler, Some("a.b.login"), b"[\"hunter2\"]").contains("hunter2"));
    }

    #[test]
    fn too_many_secret_requests_make_all_answers_secret() {
        let mut requests = SecretRequests::default();
        for id in 0..SECRET_REQUESTS_MAX as u32 {
            requests.add(id);
        }
        assert!(requests.take(7) && !requests.take(7));
        requests.add(7);
        requests.add(9_999);
        assert!(requests.take(9_999) && requests.take(123_456));
    }

    #[test]
    fn a_turn_looks_at_so_many_bytes_and_at_so_many_members() {
        let body = format!("{{{}\"pwd\":\"hunter2\"}}", "\"a\":1,".repeat(MEMBERS_MAX));
        let kept = redacted(PackageType::Kick, body.len(), body.as_bytes(), true);
        assert_eq!(kept.len(), 1 + 6 * MEMBERS_MAX, "what is behind them is not kept");
        let mut redactor = Redactor::default();
        let requests = &mut SecretRequests::default();
        let mut kept_of = |redactor: &mut Redactor, len: usize| {
            let kept = format!("[\"{}\"]", "x".repeat(len - 4)).into_bytes();
            let kind = RecordKind::Package(PackageType::Kick);
            let mut cut = Cut { kind, len, kept };
            redactor.redact(&mut cut, None, requests, &options(true));
            cut.kept.len()
        };
        redactor.begin_turn();
        let most = REDACTED_PER_TURN;
        assert_eq!(kept_of(&mut redactor, most - 8), most - 8);
        assert_eq!(kept_of(&mut redactor, 9), 0, "no time for it");
        assert_eq!(kept_of(&mut redactor, 8), 8);
        redactor.begin_turn();
        assert_eq!(kept_of(&mut redactor, 9), 9);
    }
}

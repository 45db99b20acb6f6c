//! The page at `/`: it is in the binary, with its script and its style, and asks nobody but this
//! server (and the game's own port, in the demo).

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};

use serde_json::json;

use super::context::Context;
use super::guard;
use super::http::{Request, Response};

/// The place in the page for what its script has to know.
const FACTS: &str = "{{facts}}";

const HTML: &str = include_str!("page/page.html");

/// The files that it consists of beside the text, by their names below `/page/`.
const FILES: [(&str, &str, &str); 7] = [
    ("page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("page.js", SCRIPT, include_str!("page/page.js")),
    ("base.js", SCRIPT, include_str!("page/base.js")),
    ("words.js", SCRIPT, include_str!("page/words.js")),
    ("plot.js", SCRIPT, include_str!("page/plot.js")),
    ("sessions.js", SCRIPT, include_str!("page/sessions.js")),
    ("play.js", SCRIPT, include_str!("page/play.js")),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Bytes of the token that a page gets.
const TOKEN_BYTES: usize = 32;

/// A token that nobody can guess.
pub(super) fn random_token() -> io::Result<String> {
    let mut bytes = [0; TOKEN_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let mut token = String::with_capacity(2 * TOKEN_BYTES);
    bytes.iter().for_each(|byte| _ = write!(token, "{byte:02x}"));
    Ok(token)
}

/// The page's text.
pub(super) fn page(context: &Context<'_>, request: &Request) -> Response {
    let page = &context.options.page;
    // Only to a browser on this machine that says that it shows it as a page of its own. A proxy on
    // this machine would hand it on to whoever asks it; a browser that has come by plain HTTP from
    // another machine says nothing.
    let is_shown = request.destination.as_deref() == Some("document");
    let is_own = guard::is_local(context.from) && is_shown && !request.is_forwarded;
    let token = page.token.as_ref().filter(|_| is_own);
    let game = page.has_play.then(|| game(context, request));
    let changes = match (token, &context.options.token) {
        (Some(_), _) => "page",
        (None, Some(_)) => "token",
        (None, None) => "no",
    };
    let facts = json!({ "changes": changes, "token": token, "game": game });
    // Into an attribute in double quotes.
    let facts = facts.to_string().replace('&', "&amp;").replace('"', "&quot;");
    let sockets = game.map(|game| format!(" {game}")).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; \
         connect-src 'self'{sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    guarded("text/html; charset=utf-8", HTML.replacen(FACTS, &facts, 1))
        .with_header("Content-Security-Policy", policy)
        .with_header("Cross-Origin-Opener-Policy", "same-origin")
        .with_header("Referrer-Policy", "no-referrer")
}

/// A file of the page.
pub(super) fn file(name: &str) -> Option<Response> {
    let (_, content_type, text) = FILES.into_iter().find(|(of, ..)| *of == name)?;
    Some(guarded(content_type, text.to_owned()))
}

/// An answer that no page of another origin may load.
fn guarded(content_type: &'static str, text: String) -> Response {
    Response::of(200, content_type, text.into_bytes())
        .with_header("Cross-Origin-Resource-Policy", "same-origin")
}

/// The address of the game's port, as the browser reaches it.
fn game(context: &Context<'_>, request: &Request) -> String {
    let address = context.game;
    if !address.ip().is_unspecified() {
        return format!("ws://{address}");
    }
    // It is one of the server's own names, as it has passed the guard.
    let host = request.host.as_deref().unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "-.".contains(it);
    match !name.is_empty() && name.chars().all(is_plain) {
        true => format!("ws://{name}:{}", address.port()),
        false => format!("ws://127.0.0.1:{}", address.port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_for_nothing_that_it_does_not_have() {
        assert_eq!(HTML.matches(FACTS).count(), 1);
        for (place, _) in HTML.match_indices("/page/") {
            let name = HTML[place + 6..].split('"').next().unwrap();
            assert!(file(name).is_some(), "{name}");
        }
        for (name, _, text) in FILES.into_iter().chain([("page.html", "", HTML)]) {
            // Of other origins there is nothing but the namespace of drawings.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http:") && !text.contains("https:"), "{name}");
            assert!(!text.contains("innerHTML"), "{name}: it shows what clients have chosen");
        }
        for handler in [" onclick=", " onload=", " style=", "javascript:"] {
            assert!(!HTML.contains(handler), "the page's own policy forbids {handler}");
        }
    }

    #[test]
    fn tokens_are_long_and_differ() {
        let [one, other] = [(), ()].map(|()| random_token().unwrap());
        assert_eq!(one.len(), 2 * TOKEN_BYTES);
        assert_ne!(one, other);
    }
}

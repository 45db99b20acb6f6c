//! Log lines: rate-limited where a peer can repeat their cause, and without secrets.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::hash::BuildHasher as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The shortest time between two lines of one cause.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// The rate limit of one cause of log lines: one line per second passes, the others are counted.
///
/// It reads the clock, which the rest of the core gets from its caller. Only the log depends on it,
/// and only code that is about to log calls it.
#[derive(Debug)]
pub(crate) struct RateLimit {
    /// The earliest time of the next line, in milliseconds since the first line of the process.
    next_ms: AtomicU64,
    left_out: AtomicU64,
}

impl RateLimit {
    pub(crate) const fn new() -> Self {
        Self { next_ms: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// Returns the number of lines of this cause that were left out, if the next one may be logged
    /// now.
    pub(crate) fn take(&self) -> Option<u64> {
        static START: OnceLock<Instant> = OnceLock::new();
        let since = START.get_or_init(Instant::now).elapsed();
        self.take_at(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn take_at(&self, now_ms: u64) -> Option<u64> {
        let next_ms = self.next_ms.load(Ordering::Relaxed);
        let then_ms = now_ms.saturating_add(LINE_INTERVAL.as_millis() as u64);
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        let is_mine = now_ms >= next_ms
            && self.next_ms.compare_exchange(next_ms, then_ms, success, failure).is_ok();
        if is_mine {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// The rate limits of one cause with many peers, one for each peer. Peers whose names' hashes
/// collide share a limit.
#[derive(Debug)]
pub(crate) struct RateLimits([RateLimit; 64]);

impl RateLimits {
    pub(crate) const fn new() -> Self {
        Self([const { RateLimit::new() }; 64])
    }

    pub(crate) fn of(&self, name: &str) -> &RateLimit {
        let hash = rustc_hash::FxBuildHasher.hash_one(name);
        &self.0[(hash % self.0.len() as u64) as usize]
    }
}

/// Logs a line whose cause a peer can repeat: one line per second, with the number of lines that
/// were left out. The arguments are those of tracing's macros, with the level first. `of` and a
/// name in front of them limit the lines of each peer by themselves.
macro_rules! seldom {
    (of $name:expr, $level:ident, $($line:tt)+) => {{
        static LIMITS: $crate::log::RateLimits = $crate::log::RateLimits::new();
        match LIMITS.of($name).take() {
            None => {}
            Some(0) => ::tracing::$level!($($line)+),
            Some(left_out) => ::tracing::$level!(left_out, $($line)+),
        }
    }};
    ($level:ident, $($line:tt)+) => {{
        static LIMIT: $crate::log::RateLimit = $crate::log::RateLimit::new();
        match LIMIT.take() {
            None => {}
            Some(0) => ::tracing::$level!($($line)+),
            Some(left_out) => ::tracing::$level!(left_out, $($line)+),
        }
    }};
}
pub(crate) use seldom;

/// The characters of a text of somebody else's that a line of the log shows.
pub(crate) const EXCERPT_CHARS_MAX: usize = 200;

/// A text that somebody else has written, such as a client's route, as the log shows it: what can't
/// be printed is escaped, so that it can't look like another line, and what is long is cut.
pub(crate) struct Excerpt<'a>(pub(crate) &'a str);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        for character in text.chars().take(EXCERPT_CHARS_MAX) {
            match character {
                '"' | '\'' => f.write_char(character)?,
                character => write!(f, "{}", character.escape_debug())?,
            }
        }
        if text.chars().nth(EXCERPT_CHARS_MAX).is_some() {
            f.write_str("...")?;
        }
        Ok(())
    }
}

/// Replaces the credentials in each address of `text`: `nats://amy:secret@host` becomes
/// `nats://***@host`, and so does any word with an `@`.
///
/// Where it is not clear how far they reach, the longer reading counts, as a password may contain
/// any character.
///
/// ```
/// let line = "can't reach `nats://amy:se/c@ret@10.0.0.2:4222`";
/// assert_eq!(shaddock::redact_credentials(line), "can't reach `nats://***@10.0.0.2:4222`");
/// ```
#[must_use]
pub fn redact_credentials(text: &str) -> Cow<'_, str> {
    if !text.contains('@') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for part in text.split_inclusive(['"', '\'', '`', '\n']) {
        let Some(end) = part.rfind('@') else {
            out.push_str(part);
            continue;
        };
        let before = &part[..end];
        let word = before.find(|character: char| !character.is_whitespace()).unwrap_or(end);
        let first = before.find('@').unwrap_or(end);
        let word = before[..first].rfind(char::is_whitespace).map_or(word, |space| space + 1);
        let start = before.find("://").map_or(word, |scheme| scheme + 3);
        out.push_str(&part[..start]);
        out.push_str("***");
        out.push_str(&part[end..]);
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_second_passes_with_the_number_left_out() {
        let limit = RateLimit::new();
        assert_eq!(limit.take_at(0), Some(0));
        assert_eq!((limit.take_at(1), limit.take_at(999)), (None, None));
        assert_eq!(limit.take_at(1_000), Some(2));
        assert_eq!(limit.take_at(1_500), None);
        assert_eq!(limit.take_at(60_000), Some(1));
        assert_eq!(limit.take_at(60_000), None);
    }

    #[test]
    fn a_text_of_somebody_else_is_escaped_and_cut() {
        let shown = |text: &str| Excerpt(text).to_string();
        assert_eq!(shown("room.chat.say \"ü\""), "room.chat.say \"ü\"");
        assert_eq!(shown("a\n\u{1b}[31m\u{202e}"), "a\\n\\u{1b}[31m\\u{202e}");
        assert_eq!(shown(&"x".repeat(EXCERPT_CHARS_MAX)), "x".repeat(EXCERPT_CHARS_MAX));
        let long = shown(&"\0".repeat(100_000));
        assert_eq!(long, "\\0".repeat(EXCERPT_CHARS_MAX) + "...");
    }

    #[test]
    fn credentials_are_taken_out_of_a_text() {
        for (text, expected) in [
            ("", ""),
            ("nats://10.0.0.2:4222", "nats://10.0.0.2:4222"),
            ("nats://amy:secret@host:1", "nats://***@host:1"),
            ("nats://token@host:1", "nats://***@host:1"),
            ("amy:secret@host:1", "***@host:1"),
            ("at amy:secret@host:1 now", "at ***@host:1 now"),
            ("[\"nats://a:b@h\", \"nats://h2\"]", "[\"nats://***@h\", \"nats://h2\"]"),
            ("\"nats://amy:my pass@host\"", "\"nats://***@host\""),
            ("nats://a:b@h1,nats://c:d@h2", "nats://***@h2"),
            ("nats://ä:ö@ü", "nats://***@ü"),
            ("@", "***@"),
            (" @ @ ", " ***@ "),
        ] {
            assert_eq!(redact_credentials(text), expected, "{text}");
        }
    }
}

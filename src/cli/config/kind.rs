//! Kinds of values that keys have.

use std::str::FromStr as _;
use std::time::Duration;

use bytesize::ByteSize;
use shaddock::{ClientVersion, Driver, HostRule, LaneFull};
use toml::de::DeValue;

use crate::cli::log::LEVELS;

/// One kind of value: what to write, and how it is understood.
pub(super) struct Kind<T> {
    pub(super) expected: &'static str,
    pub(super) parse: fn(&DeValue<'_>) -> Option<T>,
}

pub(super) const FLAG: Kind<bool> =
    Kind { expected: "true or false", parse: |value| value.as_bool() };

pub(super) const TEXT: Kind<String> =
    Kind { expected: "text", parse: |value| value.as_str().map(str::to_owned) };

pub(super) const DIALECT: Kind<String> = Kind {
    expected: "\"pomelo\" or \"pitaya\"",
    parse: |value| one_of(&["pomelo", "pitaya"], value),
};

pub(super) const SERIALIZER: Kind<String> = Kind {
    expected: "\"json\" or \"protobuf\"",
    parse: |value| one_of(&["json", "protobuf"], value),
};

/// The fate of a second session of a uid; the reason for a kick stands elsewhere.
pub(super) const SINGLE_SESSION: Kind<String> = Kind {
    expected: "\"off\", \"refuse\", \"kick\" or \"close\"",
    parse: |value| one_of(&["off", "refuse", "kick", "close"], value),
};

pub(super) const LOG_LEVEL: Kind<String> = Kind {
    expected: "\"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
    parse: |value| one_of(&LEVELS, value),
};

pub(super) const LOG_FORMAT: Kind<String> =
    Kind { expected: "\"text\" or \"json\"", parse: |value| one_of(&["text", "json"], value) };

pub(super) const DRIVER: Kind<Driver> = Kind {
    expected: "\"auto\", \"ring\" or \"poll\"",
    parse: |value| value.as_str()?.parse().ok(),
};
pub(super) const LANE_FULL: Kind<LaneFull> = Kind {
    expected: "\"reject\" or \"pause\"",
    parse: |value| match value.as_str()? {
        "reject" => Some(LaneFull::Reject),
        "pause" => Some(LaneFull::Pause),
        _ => None,
    },
};

pub(super) const DURATION: Kind<Duration> = Kind {
    expected: "a duration: text such as \"3s\" or \"500ms\"",
    parse: |value| humantime::parse_duration(value.as_str()?).ok(),
};

pub(super) const HOST_RULE: Kind<HostRule> = Kind {
    expected: "an IP address, or a block such as \"203.0.113.0/24\"",
    parse: |value| HostRule::from_str(value.as_str()?).ok(),
};

pub(super) const VERSION: Kind<ClientVersion> = Kind {
    expected: "a version of up to four numbers, such as \"1.2\"",
    parse: |value| value.as_str()?.parse().ok(),
};

/// A member of a handshake.
pub(super) const MEMBER: Kind<String> = Kind {
    expected: "a member of the handshake, such as \"user.version\" or \"sys.clientVersion\"",
    parse: |value| {
        let text = value.as_str()?;
        let mut names = text.split('.');
        let is_path = matches!(names.next(), Some("sys" | "user")) && text.contains('.');
        (is_path && names.all(|name| !name.is_empty())).then(|| text.to_owned())
    },
};

/// A code of an answer that refuses.
pub(super) fn code() -> Kind<u16> {
    Kind {
        expected: "a code from 1 to 65535 but 200, by which clients know that they are in",
        parse: |value| {
            let code = number(value)?.try_into().ok()?;
            (!matches!(code, 0 | 200)).then_some(code)
        },
    }
}

/// The origin of a page, as browsers tell it.
pub(super) const ORIGIN: Kind<String> = Kind {
    expected: "an origin such as \"https://game.example\", without anything behind the host",
    parse: |value| {
        let text = value.as_str()?;
        let (scheme, host) = text.split_once("://")?;
        let is_whole = !scheme.is_empty() && !host.is_empty() && !host.contains('/');
        is_whole.then(|| text.to_owned())
    },
};

/// A header of HTTP.
pub(super) const HEADER: Kind<String> = Kind {
    expected: "a header's name such as \"X-Forwarded-For\"",
    parse: |value| {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let name = value.as_str()?;
        (!name.is_empty() && name.bytes().all(is_name)).then(|| name.to_owned())
    },
};

/// A count of something.
pub(super) fn count<T: TryFrom<u64>>() -> Kind<T> {
    let expected = match size_of::<T>() {
        2 => "a number from 0 to 65535",
        4 => "a number from 0 to 4294967295",
        _ => "a number that is not negative",
    };
    Kind { expected, parse: |value| number(value).and_then(|number| number.try_into().ok()) }
}

/// A size in memory or on the wire.
pub(super) fn bytes<T: TryFrom<u64>>() -> Kind<T> {
    Kind {
        expected: "bytes: a number, or text such as \"64 KiB\"",
        parse: |value| {
            let bytes = match value.as_str() {
                Some(text) => text.parse::<ByteSize>().ok()?.as_u64(),
                None => number(value)?,
            };
            bytes.try_into().ok()
        },
    }
}

fn one_of(words: &[&str], value: &DeValue<'_>) -> Option<String> {
    let word = value.as_str()?;
    words.contains(&word).then(|| word.to_owned())
}

fn number(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

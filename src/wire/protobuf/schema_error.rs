//! The faults of a schema file.

use std::error::Error;
use std::fmt;

/// A schema file that cannot be served; the operator is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchemaError {
    /// The route, or the `message <Name>` beside the routes; empty if the whole file is at fault.
    pub route: Box<str>,
    /// The declaration as written; empty if the whole route is at fault.
    pub field: Box<str>,
    /// The fault.
    pub kind: SchemaErrorKind,
}

impl SchemaError {
    pub(super) fn new(route: &str, field: &str, kind: SchemaErrorKind) -> Self {
        Self { route: route.into(), field: field.into(), kind }
    }
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route, field, kind } = self;
        match (route.is_empty(), field.is_empty()) {
            (true, _) => write!(f, "{kind}"),
            (false, true) => write!(f, "route {route}: {kind}"),
            (false, false) => write!(f, "route {route}, field \"{field}\": {kind}"),
        }
    }
}

impl Error for SchemaError {}

/// The faults of a schema file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchemaErrorKind {
    /// The file is not JSON.
    NotJson,
    /// The file is JSON, but not an object.
    NotAnObject,
    /// The type is neither a scalar of the dialect nor a message in scope; `bool`, `bytes` and the
    /// 64-bit types do not exist.
    UnsupportedType,
    /// The tag is not an integer from 0 to 2^28 - 1.
    Tag,
    /// The name is one that the parsed form itself uses.
    ReservedName,
    /// Messages are declared inside each other more than
    /// [`MESSAGE_DEPTH_MAX`](super::MESSAGE_DEPTH_MAX) deep.
    TooDeep,
}

impl fmt::Display for SchemaErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotJson => "the schema file is not JSON",
            Self::NotAnObject => "the schema file is not a JSON object",
            Self::UnsupportedType => "unsupported type",
            Self::Tag => "the tag is not an integer from 0 to 2^28 - 1",
            Self::ReservedName => "the name is reserved",
            Self::TooDeep => "messages nest too deep",
        })
    }
}

//! Pomelo's own protobuf dialect, transcoded from and to JSON text.
//!
//! Schemas are JSON: per route an object of `"<option> <type> <name>": tag`, where the option is
//! `required`, `optional` or `repeated` and the type `uInt32`, `int32`, `sInt32`, `float`,
//! `double`, `string` or the name of a message declared as `"message <Name>": {…}`, in the same
//! object or beside the routes.
//!
//! On the wire a field is a key `tag << 3 | wire type` and a value, both as Google has them,
//! except that
//!
//! - `int32` is zigzag, and integers are doubles: no 32-bit limit, no sign extension;
//! - repeated numbers are one key, the *count* of elements, then the elements without keys;
//! - an unknown tag is an error, and the wire type is ignored when reading;
//! - fields follow the order of the message object;
//! - nothing has a default and nothing is merged: a later value replaces an earlier one.
//!
//! # Examples
//!
//! ```
//! use shaddock::wire::protobuf::Protos;
//!
//! let protos = Protos::parse_text(
//!     r#"{"onMove": {"required int32 x": 1, "optional string by": 2}}"#,
//! )?;
//! let schema = protos.schema("onMove").expect("the route was declared");
//!
//! let mut body = Vec::new();
//! schema.encode_json_text(br#"{"x": -2, "by": "ann"}"#, &mut body)?;
//! assert_eq!(body, b"\x08\x03\x12\x03ann");
//!
//! let mut json = Vec::new();
//! schema.decode_to_json(&body, &mut json)?;
//! assert_eq!(json, br#"{"x":-2,"by":"ann"}"#);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod compile;
mod decode;
mod encode;
mod integer;
mod message_type;
mod schema;
mod schema_error;
mod table;

pub use decode::DecodeError;
pub use encode::EncodeError;
pub use schema::{Protos, Schema};
pub use schema_error::{SchemaError, SchemaErrorKind};
pub use table::ProtoTable;

/// The deepest nesting of messages, the outermost included. A deeper level is an error, in a schema
/// as in a body, so no input decides the depth of the stack.
///
/// A repeated message is an object in an array, and the innermost may hold one more array. That
/// makes 126 levels of JSON. `serde_json` reads 127, so every decoded body can be read.
pub const MESSAGE_DEPTH_MAX: usize = 63;

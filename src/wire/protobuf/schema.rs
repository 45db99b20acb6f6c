//! Compiled schema files: the fields of each message, by tag and by name.

use std::fmt;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde_json::{Map, Value};

use super::compile::{Declarations, ReadMessage};
use super::message_type::{MessageType, TypeIndex};
use super::schema_error::{SchemaError, SchemaErrorKind};
use crate::wire::member_order::in_js_order;

/// One schema file: the routes with protobuf bodies, and their schemas.
///
/// The default has no route, like an empty file.
#[derive(Clone, Debug)]
pub struct Protos {
    routes: FxHashMap<Box<str>, Schema>,
    json: String,
}

impl Protos {
    /// Compiles a schema file.
    ///
    /// As in Pomelo, members that are not declarations (not exactly three words, an unknown option)
    /// are ignored, and so is a second field with the same tag. The name of a type is looked up
    /// among the messages of the enclosing object, then among those beside the routes.
    ///
    /// # Errors
    ///
    /// [`SchemaError`] if the file declares something that the dialect cannot carry. Pomelo accepts
    /// such a file and then writes broken bodies.
    pub fn parse(file: &Value) -> Result<Self, SchemaError> {
        Self::read(file, Declarations::message)
    }

    /// Compiles the parsed form, which a client is sent in the handshake ([`Protos::to_json`]):
    /// per route an object of `"<name>": {"option", "type", "tag"}`, with the messages that are
    /// declared inside in `__messages`.
    ///
    /// Members that are no fields are ignored. [`ProtoTable::from_handshake`] reads both
    /// directions.
    ///
    /// # Errors
    ///
    /// [`SchemaError`] if the form declares something that the dialect cannot carry.
    ///
    /// # Examples
    ///
    /// ```
    /// use shaddock::wire::protobuf::Protos;
    ///
    /// let protos = Protos::parse(&serde_json::json!({"onMove": {"required int32 x": 1}}))?;
    /// let form = serde_json::from_str(protos.to_json())?;
    /// let received = Protos::parse_form(&form)?;
    /// assert!(received.schema("onMove").is_some());
    /// assert_eq!(received.to_json(), protos.to_json());
    /// assert_eq!(received.routes().collect::<Vec<_>>(), ["onMove"]);
    /// assert_eq!(Protos::parse_text("")?.to_json(), "{}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`ProtoTable::from_handshake`]: super::ProtoTable::from_handshake
    pub fn parse_form(form: &Value) -> Result<Self, SchemaError> {
        Self::read(form, Declarations::parsed_message)
    }

    /// Compiles a file whose messages `message` reads.
    fn read(file: &Value, message: ReadMessage) -> Result<Self, SchemaError> {
        let Value::Object(file) = file else {
            return Err(SchemaError::new("", "", SchemaErrorKind::NotAnObject));
        };
        let mut declared = Declarations::default();
        let mut parsed = Map::new();
        let mut roots = Vec::new();
        for (name, members) in file {
            let (index, form) = message(&mut declared, name, members, 1)?;
            match name.strip_prefix("message ") {
                Some(shared) => {
                    declared.shared.insert(shared.into(), index);
                }
                None => roots.push((name, index)),
            }
            parsed.insert(name.clone(), form);
        }
        let types = declared.resolve()?;
        let routes = roots
            .into_iter()
            .map(|(route, root)| (route.as_str().into(), Schema { types: types.clone(), root }))
            .collect();
        Ok(Self { routes, json: Value::Object(in_js_order(parsed)).to_string() })
    }

    /// Compiles the text of a schema file; an empty text is an empty file.
    ///
    /// # Errors
    ///
    /// The errors of [`Protos::parse`], and [`SchemaErrorKind::NotJson`].
    pub fn parse_text(file: &str) -> Result<Self, SchemaError> {
        // Node does the same when it reads a JSON file.
        let file = file.strip_prefix('\u{feff}').unwrap_or(file);
        if file.trim().is_empty() {
            return Ok(Self::default());
        }
        let file = serde_json::from_str(file)
            .map_err(|_| SchemaError::new("", "", SchemaErrorKind::NotJson))?;
        Self::parse(&file)
    }

    /// The same without the routes that are not wanted. Messages beside the routes stay.
    #[cfg_attr(not(feature = "engine"), allow(dead_code))]
    pub(crate) fn only(&self, is_wanted: impl Fn(&str) -> bool) -> Self {
        let mut routes = self.routes.clone();
        routes.retain(|route, _| is_wanted(route));
        let Ok(Value::Object(mut form)) = serde_json::from_str(&self.json) else {
            return self.clone();
        };
        form.retain(|name, _| !self.routes.contains_key(&**name) || is_wanted(name));
        Self { routes, json: Value::Object(in_js_order(form)).to_string() }
    }

    /// The schema of `route`'s bodies. It refers to shared tables, so it is cheap to clone and
    /// keep.
    #[must_use]
    pub fn schema(&self, route: &str) -> Option<&Schema> {
        self.routes.get(route)
    }

    /// The routes that have a schema, in no particular order.
    pub fn routes(&self) -> impl Iterator<Item = &str> {
        self.routes.keys().map(|route| &**route)
    }

    /// The parsed form that the handshake sends to clients, as compact JSON in a JavaScript
    /// server's order.
    #[must_use]
    pub fn to_json(&self) -> &str {
        &self.json
    }
}

impl Default for Protos {
    fn default() -> Self {
        Self { routes: FxHashMap::default(), json: "{}".into() }
    }
}

/// The layout of one route's bodies.
///
/// ```
/// use serde_json::json;
/// use shaddock::wire::protobuf::{DecodeError, Protos};
///
/// let protos = Protos::parse(&json!({"onMove": {"required int32 x": 1}}))?;
/// assert_eq!(protos.routes().collect::<Vec<_>>(), ["onMove"]);
/// let schema = protos.schema("onMove").expect("the route was declared");
///
/// let [mut body, mut same] = [Vec::new(), Vec::new()];
/// schema.encode_json(&json!({"x": -2}), &mut body)?;
/// schema.encode_json_text(br#"{"x":-2}"#, &mut same)?;
/// assert_eq!((&body[..], &same[..]), (&b"\x08\x03"[..], &b"\x08\x03"[..]));
///
/// let mut text = Vec::new();
/// schema.decode_to_json(&body, &mut text)?;
/// assert_eq!(text, br#"{"x":-2}"#);
/// let too_long = schema.decode_to_json_within(4, &body, &mut text);
/// assert_eq!(too_long, Err(DecodeError::TooLong));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Schema {
    pub(super) types: Arc<[MessageType]>,
    pub(super) root: TypeIndex,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Types may refer to each other in cycles, so only the outermost level is shown.
        let fields = self.types[self.root.0].fields.iter().map(|field| &field.name);
        f.debug_set().entries(fields).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Protos, Schema};

    #[test]
    fn routes_are_plain_names() {
        let file = json!({"onMove": {}, "message P": {}, "//": "a comment", "a b c": null});
        let protos = Protos::parse(&file).expect("valid schema");
        for route in ["onMove", "//", "a b c"] {
            assert!(protos.schema(route).is_some(), "{route}");
        }
        for route in ["message P", "P", "toString", "__proto__", ""] {
            assert!(protos.schema(route).is_none(), "{route}");
        }
        assert_eq!(protos.routes().count(), 3);
    }

    #[test]
    fn an_empty_text_is_an_empty_file() {
        for text in ["", " \n", "{}"] {
            let protos = Protos::parse_text(text).expect(text);
            assert_eq!((protos.to_json(), protos.routes().count()), ("{}", 0), "{text:?}");
        }
        assert!(Protos::parse_text("{").is_err());
    }

    #[test]
    fn a_type_may_hold_itself() {
        let file = json!({"r": {"optional Node n": 1}, "message Node": {"repeated Node n": 1}});
        let protos = Protos::parse(&file).expect("valid schema");
        let schema = protos.schema("r").expect("declared");
        assert_eq!(format!("{schema:?}"), r#"{"n"}"#);
    }

    #[test]
    fn schemas_can_be_kept_anywhere() {
        fn keep<T: Clone + Send + Sync + 'static>() {}
        keep::<Schema>();
        keep::<Protos>();
    }
}

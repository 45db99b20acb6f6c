//! The compiler from a schema file's text to message types.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde_json::{Map, Value, json};

use super::MESSAGE_DEPTH_MAX;
use super::message_type::{Field, FieldOption, Kind, MessageType, TypeIndex};
use super::schema_error::{SchemaError, SchemaErrorKind};
use crate::wire::member_order::in_js_order;

/// The messages of a file before the names of their types are resolved.
#[derive(Default)]
pub(super) struct Declarations {
    messages: Vec<Declaration>,
    /// The `message <Name>` entries beside the routes.
    pub(super) shared: FxHashMap<Box<str>, TypeIndex>,
}

/// A message whose fields still name their types.
#[derive(Default)]
struct Declaration {
    /// The root entry that contains it, for errors.
    route: Box<str>,
    fields: Vec<UnresolvedField>,
    /// The index in `fields` for each tag.
    by_tag: Vec<(u32, usize)>,
    nested: FxHashMap<Box<str>, TypeIndex>,
}

/// A field with the name of its type.
struct UnresolvedField {
    declared_as: Box<str>,
    name: Box<str>,
    type_name: Box<str>,
    tag: u32,
    option: FieldOption,
}

/// Reads a message at a depth, as it is written or as it is sent, and gives its parsed form.
pub(super) type ReadMessage =
    fn(&mut Declarations, &str, &Value, usize) -> Result<(TypeIndex, Value), SchemaError>;

impl Declarations {
    /// Reads one message and those inside it. Returns its index and its parsed form.
    pub(super) fn message(
        &mut self,
        route: &str,
        members: &Value,
        depth: usize,
    ) -> Result<(TypeIndex, Value), SchemaError> {
        if depth > MESSAGE_DEPTH_MAX {
            return Err(SchemaError::new(route, "", SchemaErrorKind::TooDeep));
        }
        let mut declaration = Declaration { route: route.into(), ..Declaration::default() };
        let mut parsed = Map::new();
        let mut messages = Map::new();
        // Pomelo reads an entry that is not an object, such as a comment, as an empty message.
        for (declared_as, value) in members.as_object().into_iter().flatten() {
            // Words are split at single spaces: two in a row give an empty word, and the member is
            // ignored.
            let words: Vec<_> = declared_as.split(' ').collect();
            match *words {
                ["message", name] => {
                    let (index, form) = self.message(route, value, depth + 1)?;
                    declaration.nested.insert(name.into(), index);
                    messages.insert(name.into(), form);
                }
                [option, type_name, name] => {
                    let Some(option) = FieldOption::named(option) else { continue };
                    if declaration.field(declared_as, option, type_name, name, value)? {
                        let form = json!({"option": words[0], "type": type_name, "tag": value});
                        parsed.insert(name.into(), form);
                    }
                }
                _ => {}
            }
        }
        parsed.insert(MESSAGES_MEMBER.into(), Value::Object(in_js_order(messages)));
        parsed.insert(TAGS_MEMBER.into(), declaration.tags_form());
        self.messages.push(declaration);
        Ok((TypeIndex(self.messages.len() - 1), Value::Object(in_js_order(parsed))))
    }

    /// Reads the parsed form of one message and of those inside it. Returns its index, and the form
    /// again.
    pub(super) fn parsed_message(
        &mut self,
        route: &str,
        members: &Value,
        depth: usize,
    ) -> Result<(TypeIndex, Value), SchemaError> {
        if depth > MESSAGE_DEPTH_MAX {
            return Err(SchemaError::new(route, "", SchemaErrorKind::TooDeep));
        }
        let mut declaration = Declaration { route: route.into(), ..Declaration::default() };
        let mut parsed = Map::new();
        let mut messages = Map::new();
        // A search through the fields for each of them would take a hostile server's time squared.
        let mut by_name = BTreeMap::new();
        let mut by_tag = BTreeMap::new();
        for (name, field) in members.as_object().into_iter().flatten() {
            match name.as_str() {
                MESSAGES_MEMBER => {
                    for (name, message) in field.as_object().into_iter().flatten() {
                        let (index, form) = self.parsed_message(route, message, depth + 1)?;
                        declaration.nested.insert(name.as_str().into(), index);
                        messages.insert(name.clone(), form);
                    }
                }
                TAGS_MEMBER => {}
                _ => {
                    let Some(unresolved) = UnresolvedField::parsed(route, name, field)? else {
                        continue;
                    };
                    let index = declaration.fields.len();
                    by_name.insert(name.as_str(), index);
                    by_tag.entry(unresolved.tag).or_insert(index);
                    declaration.fields.push(unresolved);
                    parsed.insert(name.clone(), field.clone());
                }
            }
        }
        // A name that was declared twice has a second tag, which only this list has.
        for (tag, name) in members.get(TAGS_MEMBER).and_then(Value::as_object).into_iter().flatten()
        {
            let tag = tag.parse().ok().filter(|&tag| tag <= TAG_MAX);
            let index = name.as_str().and_then(|name| by_name.get(name));
            if let (Some(tag), Some(&index)) = (tag, index) {
                by_tag.entry(tag).or_insert(index);
            }
        }
        declaration.by_tag = by_tag.into_iter().collect();
        parsed.insert(MESSAGES_MEMBER.into(), Value::Object(messages));
        parsed.insert(TAGS_MEMBER.into(), declaration.tags_form());
        self.messages.push(declaration);
        Ok((TypeIndex(self.messages.len() - 1), Value::Object(parsed)))
    }

    /// Replaces the names of types by their indices.
    pub(super) fn resolve(self) -> Result<Arc<[MessageType]>, SchemaError> {
        let shared = &self.shared;
        self.messages.into_iter().map(|message| message.resolve(shared)).collect()
    }
}

impl UnresolvedField {
    /// Reads the parsed form of a field. `None` for a member that is none.
    fn parsed(route: &str, name: &str, field: &Value) -> Result<Option<Self>, SchemaError> {
        let text = |member| field.get(member).and_then(Value::as_str);
        let Some(option) = text("option").and_then(FieldOption::named) else { return Ok(None) };
        let Some(type_name) = text("type") else { return Ok(None) };
        let tag = field.get("tag").and_then(Value::as_u64).and_then(|tag| u32::try_from(tag).ok());
        let tag = tag
            .filter(|&tag| tag <= TAG_MAX)
            .ok_or_else(|| SchemaError::new(route, name, SchemaErrorKind::Tag))?;
        let (declared_as, name) = (name.into(), name.into());
        Ok(Some(Self { declared_as, name, type_name: type_name.into(), tag, option }))
    }
}

impl Declaration {
    /// Adds a field. True if it counts; one whose tag is taken does not.
    fn field(
        &mut self,
        declared_as: &str,
        option: FieldOption,
        type_name: &str,
        name: &str,
        tag: &Value,
    ) -> Result<bool, SchemaError> {
        let error = |kind| SchemaError::new(&self.route, declared_as, kind);
        let tag = tag.as_u64().and_then(|tag| u32::try_from(tag).ok());
        let tag = tag.filter(|&tag| tag <= TAG_MAX).ok_or_else(|| error(SchemaErrorKind::Tag))?;
        if name == MESSAGES_MEMBER || name == TAGS_MEMBER {
            return Err(error(SchemaErrorKind::ReservedName));
        }
        if self.by_tag.iter().any(|&(taken, _)| taken == tag) {
            return Ok(false);
        }
        let (declared_as, type_name) = (declared_as.into(), type_name.into());
        let field = UnresolvedField { declared_as, name: name.into(), type_name, tag, option };
        // A name declared again replaces the first field; both tags then lead to the second.
        let index = match self.fields.iter().position(|field| &*field.name == name) {
            Some(index) => {
                self.fields[index] = field;
                index
            }
            None => {
                self.fields.push(field);
                self.fields.len() - 1
            }
        };
        self.by_tag.push((tag, index));
        Ok(true)
    }

    /// The `__tags` of the parsed form, from tag to name.
    fn tags_form(&self) -> Value {
        let tags = self.by_tag.iter();
        let tags = tags.map(|&(tag, index)| (tag.to_string(), (*self.fields[index].name).into()));
        Value::Object(in_js_order(tags.collect()))
    }

    fn resolve(self, shared: &FxHashMap<Box<str>, TypeIndex>) -> Result<MessageType, SchemaError> {
        let Self { route, fields, by_tag, nested } = self;
        let fields = fields
            .into_iter()
            .map(|field| {
                let message =
                    || nested.get(&field.type_name).or_else(|| shared.get(&field.type_name));
                let kind = Kind::scalar(&field.type_name)
                    .or_else(|| message().copied().map(Kind::Message))
                    .ok_or_else(|| {
                        let kind = SchemaErrorKind::UnsupportedType;
                        SchemaError::new(&route, &field.declared_as, kind)
                    })?;
                let member = format!("{}:", Value::from(&*field.name)).into_bytes().into();
                let UnresolvedField { name, tag, option, .. } = field;
                Ok(Field { name, member, tag, option, kind })
            })
            .collect::<Result<Box<[_]>, _>>()?;
        Ok(MessageType::new(fields, by_tag))
    }
}

impl FieldOption {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "required" => Self::Required,
            "optional" => Self::Optional,
            "repeated" => Self::Repeated,
            _ => return None,
        })
    }
}

/// The greatest tag whose key `tag << 3 | wire type` is not negative in JavaScript.
const TAG_MAX: u32 = (1 << 28) - 1;

/// A member of the parsed form that is not a field.
const MESSAGES_MEMBER: &str = "__messages";
const TAGS_MEMBER: &str = "__tags";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{SchemaErrorKind, TAG_MAX};
    use crate::wire::protobuf::{MESSAGE_DEPTH_MAX, Protos};

    #[test]
    fn an_error_names_route_and_field() {
        for (file, kind, message) in [
            (
                json!({"a.b.c": {"optional string s": 1, "required bool ok": 2}}),
                SchemaErrorKind::UnsupportedType,
                "route a.b.c, field \"required bool ok\": unsupported type",
            ),
            (
                json!({"message Shared": {"required uInt64 n": 1}}),
                SchemaErrorKind::UnsupportedType,
                "route message Shared, field \"required uInt64 n\": unsupported type",
            ),
            (
                json!({"r": {"required int32 n": "1"}}),
                SchemaErrorKind::Tag,
                "route r, field \"required int32 n\": the tag is not an integer from 0 to 2^28 - 1",
            ),
            (
                json!({"r": {"required int32 n": TAG_MAX + 1}}),
                SchemaErrorKind::Tag,
                "route r, field \"required int32 n\": the tag is not an integer from 0 to 2^28 - 1",
            ),
            (
                json!({"r": {"required int32 __tags": 1}}),
                SchemaErrorKind::ReservedName,
                "route r, field \"required int32 __tags\": the name is reserved",
            ),
            (json!([]), SchemaErrorKind::NotAnObject, "the schema file is not a JSON object"),
        ] {
            let error = Protos::parse(&file).expect_err(message);
            assert_eq!((error.kind, error.to_string().as_str()), (kind, message));
        }
    }

    #[test]
    fn a_type_is_looked_up_in_its_own_message_and_beside_the_routes_only() {
        let inner = json!({"required uInt32 x": 1});
        let shared = json!({"r": {"required P p": 1}, "message P": inner});
        assert!(Protos::parse(&shared).is_ok());
        let nested = json!({"r": {"message P": inner, "required P p": 1}});
        assert!(Protos::parse(&nested).is_ok());
        let outer = json!({"r": {
            "message P": inner,
            "message Q": {"required P p": 1},
            "required Q q": 1,
        }});
        let error = Protos::parse(&outer).expect_err("P is not in reach of Q");
        assert_eq!(error.kind, SchemaErrorKind::UnsupportedType);
    }

    #[test]
    fn messages_nest_to_a_limit() {
        let file = |levels| {
            let innermost = json!({"optional string s": 1});
            // Moved, as `json!` would copy the content at each level.
            let outer = |inner: Value, _| Value::from_iter([("message M", inner)]);
            Value::from_iter([("r", (1..levels).fold(innermost, outer))])
        };
        assert!(Protos::parse(&file(MESSAGE_DEPTH_MAX)).is_ok());
        let error = Protos::parse(&file(MESSAGE_DEPTH_MAX + 1)).expect_err("one too many");
        assert_eq!(error.kind, SchemaErrorKind::TooDeep);
    }

    #[test]
    fn a_name_declared_again_keeps_its_place_and_both_tags() {
        let file = json!({"r": {
            "required uInt32 a": 2,
            "optional uInt32 7": 1,
            "optional string a": 3,
        }});
        let protos = Protos::parse(&file).expect("valid schema");
        assert_eq!(
            protos.to_json(),
            concat!(
                r#"{"r":{"7":{"option":"optional","type":"uInt32","tag":1},"#,
                r#""a":{"option":"optional","type":"string","tag":3},"#,
                r#""__messages":{},"__tags":{"1":"7","2":"a","3":"a"}}}"#
            )
        );
        let schema = protos.schema("r").expect("declared");
        let mut json = Vec::new();
        schema.decode_to_json(b"\x10\x01x", &mut json).expect("tag 2 leads to the text");
        assert_eq!(json, br#"{"a":"x"}"#);

        let form = serde_json::from_str(protos.to_json()).expect("the form is JSON");
        let received = Protos::parse_form(&form).expect("the form is valid");
        assert_eq!(received.to_json(), protos.to_json());
        json.clear();
        received.schema("r").unwrap().decode_to_json(b"\x10\x01x", &mut json).expect("tag 2");
        assert_eq!(json, br#"{"a":"x"}"#);
    }
}

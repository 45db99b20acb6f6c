//! Message types, compiled: the fields of each, by tag and by name.

/// The index of a message type in its file's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TypeIndex(pub(super) usize);

/// One message type, compiled.
#[derive(Debug)]
pub(super) struct MessageType {
    /// The fields, in the order of declaration.
    pub(super) fields: Box<[Field]>,
    /// The tag and index of each field, sorted by tag. A name declared twice has two tags here.
    by_tag: Box<[(u32, usize)]>,
    /// The indices of the fields, sorted by name.
    by_name: Box<[usize]>,
    /// The number of required fields.
    pub(super) required: usize,
}

impl MessageType {
    /// Builds the lookups for `fields`. `by_tag` holds tags and field indices in any order.
    pub(super) fn new(fields: Box<[Field]>, mut by_tag: Vec<(u32, usize)>) -> Self {
        by_tag.sort_unstable();
        let mut by_name: Box<[_]> = (0..fields.len()).collect();
        by_name.sort_unstable_by(|&a, &b| fields[a].name.cmp(&fields[b].name));
        let required = fields.iter().filter(|field| field.option == FieldOption::Required).count();
        Self { fields, by_tag: by_tag.into(), by_name, required }
    }

    /// The index of the field with `tag`.
    pub(super) fn field_by_tag(&self, tag: u32) -> Option<usize> {
        // Tags mostly count up from 1, so a field usually stands at its own position.
        match self.by_tag.get((tag as usize).wrapping_sub(1)) {
            Some(&(found, index)) if found == tag => Some(index),
            _ => {
                let at = self.by_tag.binary_search_by_key(&tag, |&(found, _)| found).ok()?;
                Some(self.by_tag[at].1)
            }
        }
    }

    /// The index of the field called `name`. `likely` is tried first, as messages mostly list their
    /// members in the schema's order.
    pub(super) fn field_by_name(&self, name: &str, likely: usize) -> Option<usize> {
        if self.fields.get(likely).is_some_and(|field| &*field.name == name) {
            return Some(likely);
        }
        let found = self.by_name.binary_search_by(|&index| (*self.fields[index].name).cmp(name));
        found.ok().map(|at| self.by_name[at])
    }
}

/// One field of a message type.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: Box<str>,
    /// The name as it begins a JSON member: quoted, escaped, with the colon.
    pub(super) member: Box<[u8]>,
    /// INVARIANT: `tag <= TAG_MAX`, so that the key fits 32 bits.
    pub(super) tag: u32,
    pub(super) option: FieldOption,
    pub(super) kind: Kind,
}

/// The number of times that a field may occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldOption {
    Required,
    Optional,
    Repeated,
}

/// The type of a field's value. `int32` and `sInt32` are the same on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    UInt32,
    SInt32,
    Float,
    Double,
    Text,
    Message(TypeIndex),
}

impl Kind {
    /// The scalar called `name`; anything else names a message.
    pub(super) fn scalar(name: &str) -> Option<Self> {
        Some(match name {
            "uInt32" => Self::UInt32,
            "int32" | "sInt32" => Self::SInt32,
            "float" => Self::Float,
            "double" => Self::Double,
            "string" => Self::Text,
            _ => return None,
        })
    }

    /// The low three bits of a key.
    pub(super) fn wire_type(self) -> u32 {
        match self {
            Self::UInt32 | Self::SInt32 => 0,
            Self::Double => 1,
            Self::Text | Self::Message(_) => 2,
            Self::Float => 5,
        }
    }

    /// The fewest bytes of an element in a counted run; `None` if every element has its own key.
    pub(super) fn counted_bytes_min(self) -> Option<usize> {
        match self {
            Self::UInt32 | Self::SInt32 => Some(1),
            Self::Float => Some(4),
            Self::Double => Some(8),
            Self::Text | Self::Message(_) => None,
        }
    }
}

//! Ids and uids as those who look at sessions from outside see them.

use std::sync::Arc;

use serde::{Serialize as _, Serializer};

use super::{SessionId, Uid};

/// Characters of a uid that are shown; a longer one ends with an ellipsis.
const UID_CHARS_SHOWN: usize = 256;

#[allow(clippy::ref_option)] // As serde calls it.
pub(super) fn uid_text<S: Serializer>(uid: &Option<Uid>, to: S) -> Result<S::Ok, S::Error> {
    let cut = uid.as_ref().and_then(|uid| {
        let (end, _) = uid.text().char_indices().nth(UID_CHARS_SHOWN)?;
        Some(format!("{}…", &uid.text()[..end]))
    });
    match (cut, uid) {
        (Some(cut), _) => to.serialize_str(&cut),
        (None, uid) => uid.serialize(to),
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
pub(super) fn id_text<S: Serializer>(id: &SessionId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{id:?}"))
}

#[allow(clippy::ref_option)] // As serde calls it.
pub(super) fn route_text<S: Serializer>(
    route: &Option<Arc<str>>,
    to: S,
) -> Result<S::Ok, S::Error> {
    route.as_deref().serialize(to)
}

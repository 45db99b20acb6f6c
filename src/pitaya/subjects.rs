//! The names of things on NATS and in etcd (docs/protocol/pitaya.md, "NATS subjects",
//! "Server registration").

use std::sync::Arc;

/// The name of a subject.
pub(crate) type Subject = Arc<str>;

/// The longest name that goes into a subject: NATS cuts off whoever sends a longer line of
/// protocol than 4,096 bytes.
pub(super) const NAME_BYTES_MAX: usize = 1024;

/// The subject on which a server is asked.
pub(crate) fn server(server_type: &str, id: &str) -> Subject {
    format!("pitaya/servers/{server_type}/{id}").into()
}

/// The subject on which the frontends of a type tell each other who has logged in.
pub(crate) fn bindings(frontend_type: &str) -> Subject {
    format!("pitaya/{frontend_type}/bindings").into()
}

/// The subject of pushes to a user.
pub(crate) fn push(frontend_type: &str, uid: &str) -> Subject {
    format!("pitaya/{frontend_type}/user/{uid}/push").into()
}

/// The subject of kicks of a user.
pub(crate) fn kick(frontend_type: &str, uid: &str) -> Subject {
    format!("pitaya/{frontend_type}/user/{uid}/kick").into()
}

/// True if a uid may stand in a subject. A token of a subject that is just `*` or `>` is a
/// wildcard, and none may be empty; of a uid only what stands between two dots is a whole token.
pub(crate) fn is_name(name: &str) -> bool {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control();
    let inner = name.split('.').skip(1);
    let inner = inner.take(name.split('.').count().saturating_sub(2));
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.chars().all(is_plain)
        && inner.into_iter().all(|token| !matches!(token, "" | "*" | ">"))
}

/// True if a server's type or id may stand in a subject and in a key.
pub(crate) fn is_server_name(name: &str) -> bool {
    is_name(name) && !name.contains('/') && !name.starts_with('.') && !name.ends_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_mean_something_else_are_found() {
        for good in
            ["1", "amy", "a.b", "ümit", "a/b", "a@b", "amy*room1", "*", ">", "a.*b", "a.>", "*.a"]
        {
            assert!(is_name(good), "{good}");
        }
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        for bad in ["", "a b", "a\tb", "a\nb", "a.*.b", "a.>.b", "a..b", "a\u{0}", &long] {
            assert!(!is_name(bad), "{bad}");
        }
        assert!(is_server_name("4f1a-room"));
        for bad in ["a/b", ".a", "a.", "a b", ""] {
            assert!(!is_server_name(bad), "{bad}");
        }
    }
}

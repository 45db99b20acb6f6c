//! The order in which JavaScript lists the members of an object.

use serde_json::{Map, Value};

/// The greatest array index; a larger number is an ordinary member name.
const ARRAY_INDEX_MAX: u32 = u32::MAX - 1;

/// Orders `members` as a JavaScript engine lists them: names that look like array indices first,
/// ascending, then the others in insertion order.
///
/// The version texts hash JSON as `JSON.stringify` prints it, so the order is part of the protocol.
pub(crate) fn in_js_order(members: Map<String, Value>) -> Map<String, Value> {
    if !members.keys().any(|name| array_index(name).is_some()) {
        return members;
    }
    let mut members: Vec<_> = members.into_iter().collect();
    // The sort is stable, so ordinary names keep their insertion order behind the indices.
    members.sort_by_key(|(name, _)| array_index(name).unwrap_or(u32::MAX));
    members.into_iter().collect()
}

/// The array index that `name` spells in canonical form, if it does.
fn array_index(name: &str) -> Option<u32> {
    let canonical = name == "0" || (!name.starts_with('0') && !name.starts_with('+'));
    let index = name.parse().ok()?;
    (canonical && index <= ARRAY_INDEX_MAX).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::in_js_order;

    #[test]
    fn indices_come_first_and_ascending() {
        let text = r#"{"b":1,"10":2,"9":3,"a":4,"01":5,"4294967295":6,"+1":7,"0":8}"#;
        let members = in_js_order(serde_json::from_str(text).expect("valid JSON"));
        let names: Vec<_> = members.keys().map(String::as_str).collect();
        assert_eq!(names, ["0", "9", "10", "b", "a", "01", "4294967295", "+1"]);
    }
}

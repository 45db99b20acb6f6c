//! Runs the golden vectors of the dictionary and of the default route, recorded from Pomelo 2.2.7,
//! through the public API.

use std::fs;

use serde_json::{Map, Value};
use shaddock::route::{Dictionary, default_route, uid_text};

fn cases(file: &str) -> Vec<Value> {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read(&path).expect("the vectors are part of the repository");
    let mut file: Value = serde_json::from_slice(&text).expect("the vectors are JSON");
    serde_json::from_value(file["cases"].take()).expect("a list of cases")
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|text| text.as_str().expect("a text")).collect()
}

fn members(object: &Value) -> &Map<String, Value> {
    object.as_object().expect("an object")
}

#[test]
fn dictionaries_are_numbered_as_recorded() {
    let cases = cases("dictionary.json");
    assert_eq!(cases.len(), 7);
    for (place, case) in cases.iter().enumerate() {
        let handler_routes = texts(&case["handler_routes_unsorted"]);
        let dictionary = Dictionary::new(handler_routes, texts(&case["user"])).expect("valid");
        assert_eq!(dictionary.version(), case["version"], "case {place}");
        assert_eq!(dictionary.route_to_code_json(), case["dict"].to_string(), "case {place}");
        assert_eq!(dictionary.code_to_route_json(), case["abbrs"].to_string(), "case {place}");
        for (route, code) in members(&case["dict"]) {
            let found = dictionary.code(route).map(u64::from);
            assert_eq!(found, code.as_u64(), "case {place}, {route}");
        }
        for (code, route) in members(&case["abbrs"]) {
            let found = dictionary.route(code.parse().expect("a code"));
            assert_eq!(found, route.as_str(), "case {place}, {code}");
        }
        let imported = members(&case["dict"]).iter();
        let imported = imported.map(|(route, code)| (route, code.as_u64().expect("a code") as u32));
        let imported = Dictionary::from_map(imported).expect("valid");
        assert_eq!(imported.version(), case["version"], "case {place}, imported");
    }
}

#[test]
fn sessions_are_routed_as_recorded() {
    let cases = cases("default_route.json");
    assert_eq!(cases.len(), 59);
    let mut checked = 0;
    for case in &cases {
        let uid = &case["uid"];
        assert_eq!(uid_text(uid), case["key"].as_str().expect("a text"), "uid {uid}");
        for (servers, index) in members(&case["idx_by_count"]) {
            let servers = servers.parse().expect("a count");
            let found = default_route(&uid_text(uid), servers).map(|index| index as u64);
            assert_eq!(found, index.as_u64(), "uid {uid} among {servers}");
            checked += 1;
        }
    }
    assert_eq!(checked, 293);
}

//! `[dictionary]`: codes for routes, from lists or a file.

use serde_json::Value;
use shaddock::route::Dictionary;
use shaddock::{Builder, FILE_BYTES_MAX, Handle, HandleError};

use super::Section;
use super::kind::TEXT;
use super::table::Table;

/// None where no route has a code.
struct Codes(Option<Dictionary>);

/// The contents of the two kinds of file.
const FILE: &str = "a JSON list of routes (Pomelo's dictionary.json), or a JSON object of routes \
                    and their codes";

pub(super) fn read(root: &mut Table<'_>, name: &'static str) -> Box<dyn Section> {
    root.table(name, |table| {
        table.changes_while_running();
        let handlers = table.read_list("handlers", TEXT);
        let mut routes = table.read_list("routes", TEXT);
        let file = table.read_file("file", FILE_BYTES_MAX);
        let dictionary = match file.map(|text| serde_json::from_str(&text)) {
            None => numbered(table, handlers, routes),
            Some(Ok(Value::Array(list))) => {
                match list.iter().map(|route| route.as_str().map(str::to_owned)).collect() {
                    Some::<Vec<String>>(listed) => routes.splice(..0, listed),
                    None => {
                        table.refuse("file", FILE, Some("it has something else than text in it"));
                        return Box::new(Codes(None)) as Box<dyn Section>;
                    }
                };
                numbered(table, handlers, routes)
            }
            Some(Ok(Value::Object(codes))) if handlers.is_empty() && routes.is_empty() => {
                mapped(table, codes)
            }
            Some(Ok(Value::Object(_))) => {
                let why = "a file with codes has all routes: leave handlers and routes out";
                table.refuse("file", "a JSON list of routes", Some(why));
                None
            }
            Some(Ok(_)) => {
                table.refuse("file", FILE, Some("it is neither"));
                None
            }
            Some(Err(error)) => {
                table.refuse("file", FILE, Some(&error.to_string()));
                None
            }
        };
        Box::new(Codes(dictionary.filter(|dictionary| !dictionary.is_empty())))
    })
}

fn numbered(
    table: &mut Table<'_>,
    handlers: Vec<String>,
    routes: Vec<String>,
) -> Option<Dictionary> {
    match Dictionary::new(handlers, routes) {
        Ok(dictionary) => Some(dictionary),
        Err(error) => {
            table.refuse("", "routes with codes from 1 to 65535", Some(&error.to_string()));
            None
        }
    }
}

fn mapped(table: &mut Table<'_>, codes: serde_json::Map<String, Value>) -> Option<Dictionary> {
    let code = |(route, code): (String, Value)| {
        code.as_u64().and_then(|code| u32::try_from(code).ok()).map(|code| (route, code))
    };
    let why = match codes.into_iter().map(code).collect::<Option<Vec<_>>>() {
        None => "a code is not a number".to_owned(),
        Some(codes) => match Dictionary::from_map(codes) {
            Ok(dictionary) => return Some(dictionary),
            Err(error) => error.to_string(),
        },
    };
    table.refuse("file", FILE, Some(&why));
    None
}

impl Section for Codes {
    fn describe(&self, builder: Builder) -> Builder {
        match &self.0 {
            Some(dictionary) => builder.dictionary(dictionary.clone()),
            None => builder,
        }
    }

    fn apply(&self, handle: &Handle) -> Result<(), HandleError> {
        handle.set_dictionary(self.0.clone())
    }
}

//! The dictionary: two-byte codes that stand for routes on the wire.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde_json::{Map, Value};

use crate::wire::fingerprint::fingerprint;
use crate::wire::member_order::in_js_order;

/// Routes and their codes, 1 to 65535.
///
/// A client receives the tables in the handshake answer and may keep them as long as the version
/// stays the same.
///
/// # Examples
///
/// ```
/// use shaddock::route::Dictionary;
///
/// let dictionary = Dictionary::new(["chat.chatHandler.send"], ["onChat"])?;
/// assert_eq!(dictionary.code("onChat"), Some(2));
/// assert_eq!(dictionary.route(2), Some("onChat"));
/// assert_eq!((dictionary.len(), dictionary.is_empty()), (2, false));
/// for (code, route) in dictionary.iter() {
///     println!("{code} {route}");
/// }
/// # Ok::<(), shaddock::route::DictionaryError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Dictionary {
    /// The routes by code; nothing has the code 0, and imported codes may leave gaps.
    routes: Vec<Option<Arc<str>>>,
    codes: FxHashMap<Arc<str>, u16>,
    route_to_code_json: String,
    code_to_route_json: String,
    version: String,
}

impl Dictionary {
    /// Numbers routes as Pomelo does: `handler_routes` sorted by UTF-16 code units, then `user`
    /// (`config/dictionary.json`) in its own order, from 1.
    ///
    /// A route listed twice takes two codes: both lead to the route, and the route leads to the
    /// last.
    ///
    /// # Errors
    ///
    /// If there are more routes than codes.
    pub fn new<H, U>(handler_routes: H, user: U) -> Result<Self, DictionaryError>
    where
        H: IntoIterator<Item: Into<String>>,
        U: IntoIterator<Item: Into<String>>,
    {
        let mut routes: Vec<String> = handler_routes.into_iter().map(Into::into).collect();
        routes.sort_by(|a, b| a.encode_utf16().cmp(b.encode_utf16()));
        routes.extend(user.into_iter().map(Into::into));
        Self::build(routes.into_iter().zip(1..))
    }

    /// Adopts an existing map from route to code, such as the `dict` of a running Pomelo. The same
    /// order gives the same version.
    ///
    /// ```
    /// use shaddock::route::Dictionary;
    ///
    /// let dictionary = Dictionary::from_map([("onMove", 3), ("onChat", 7)])?;
    /// assert_eq!(dictionary.code("onChat"), Some(7));
    /// assert!(Dictionary::from_map([("onMove", 3), ("onChat", 3)]).is_err());
    /// # Ok::<(), shaddock::route::DictionaryError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If a code is out of range or stands for two routes, or a route has two codes.
    pub fn from_map<R: Into<String>>(
        map: impl IntoIterator<Item = (R, u32)>,
    ) -> Result<Self, DictionaryError> {
        let dictionary = Self::build(map.into_iter().map(|(route, code)| (route.into(), code)))?;
        // Each entry claims a code of its own, so this finds a route with two codes.
        let claimed = dictionary.routes.iter().enumerate();
        for (code, route) in claimed.filter_map(|(code, route)| Some((code, route.as_ref()?))) {
            if usize::from(dictionary.codes[route]) != code {
                return Err(DictionaryError::RouteTwice { code: code as u16 });
            }
        }
        Ok(dictionary)
    }

    /// Reads the tables in `sys` of a handshake's answer, `dict` (or `routeToCode`) and
    /// `codeToRoute`. `None` if there are none: the server has no dictionary, or knows that the
    /// client has it.
    ///
    /// # Errors
    ///
    /// The tables contradict each other, or a code is out of range.
    ///
    /// # Examples
    ///
    /// ```
    /// use serde_json::json;
    /// use shaddock::route::Dictionary;
    ///
    /// let sys = json!({"heartbeat": 3, "dict": {"onChat": 1}, "codeToRoute": {"1": "onChat"}});
    /// let dictionary = Dictionary::from_handshake(&sys)?.expect("there is a dictionary");
    /// assert_eq!(dictionary.route(1), Some("onChat"));
    /// # Ok::<(), shaddock::route::DictionaryError>(())
    /// ```
    pub fn from_handshake(sys: &Value) -> Result<Option<Self>, DictionaryError> {
        let table = |name| sys.get(name).and_then(Value::as_object);
        let Some(codes) = table("dict").or_else(|| table("routeToCode")) else { return Ok(None) };
        // 0 stands for whatever is no code, and is none either.
        let code = |code: &Value| code.as_u64().and_then(|code| code.try_into().ok()).unwrap_or(0);
        let mut dictionary =
            Self::build(codes.iter().map(|(route, of_route)| (route.clone(), code(of_route))))?;
        // A route that is listed twice has a second code, which only this table has.
        for (code, route) in table("codeToRoute").into_iter().flatten() {
            let code = code.parse().ok().filter(|&code| code > 0);
            let code: u16 = code.ok_or(DictionaryError::CodeOutOfRange)?;
            let route = route.as_str().ok_or(DictionaryError::CodeOutOfRange)?;
            dictionary.add_code(code, route)?;
        }
        dictionary.code_to_route_json = code_to_route_json(&dictionary.routes);
        Ok(Some(dictionary))
    }

    /// Lets one more code lead to a route.
    fn add_code(&mut self, code: u16, route: &str) -> Result<(), DictionaryError> {
        let index = usize::from(code);
        if index >= self.routes.len() {
            self.routes.resize(index + 1, None);
        }
        match &self.routes[index] {
            Some(other) if &**other != route => return Err(DictionaryError::CodeTwice { code }),
            Some(_) => {}
            None => self.routes[index] = Some(route.into()),
        }
        Ok(())
    }

    /// The route of `code`.
    #[must_use]
    pub fn route(&self, code: u16) -> Option<&str> {
        self.routes.get(usize::from(code))?.as_deref()
    }

    /// The code of `route`.
    #[must_use]
    pub fn code(&self, route: &str) -> Option<u16> {
        self.codes.get(route).copied()
    }

    /// Every code in use with its route, in the order of the codes.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &str)> {
        let routes = self.routes.iter().enumerate();
        routes.filter_map(|(code, route)| Some((u16::try_from(code).ok()?, route.as_deref()?)))
    }

    /// The number of routes, each counted once.
    #[must_use]
    pub fn len(&self) -> usize {
        self.codes.len()
    }

    /// True if no route has a code.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }

    /// The version text that a client compares with the one it stored: base64 of the MD5 of
    /// [`route_to_code_json`](Self::route_to_code_json).
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The map from route to code as compact JSON: the handshake's `dict` and `routeToCode`.
    #[must_use]
    pub fn route_to_code_json(&self) -> &str {
        &self.route_to_code_json
    }

    /// The map from code to route as compact JSON: the handshake's `codeToRoute`.
    #[must_use]
    pub fn code_to_route_json(&self) -> &str {
        &self.code_to_route_json
    }

    /// The members of the handshake's `sys` for a client without the current version, in Pomelo's
    /// order and without braces: `"dict":…`, `"routeToCode":…`, `"codeToRoute":…` and
    /// `"dictVersion":…`.
    ///
    /// ```
    /// use shaddock::route::Dictionary;
    ///
    /// let dictionary = Dictionary::new(["a.b.c"], ["onChat"])?;
    /// assert_eq!(dictionary.route_to_code_json(), r#"{"a.b.c":1,"onChat":2}"#);
    /// assert_eq!(dictionary.code_to_route_json(), r#"{"1":"a.b.c","2":"onChat"}"#);
    /// let sys = format!("{{{}}}", dictionary.handshake_members());
    /// let sys: serde_json::Value = serde_json::from_str(&sys)?;
    /// assert_eq!(sys["dictVersion"], dictionary.version());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn handshake_members(&self) -> String {
        let Self { route_to_code_json, code_to_route_json, version, .. } = self;
        // Base64 needs no escaping in JSON.
        format!(
            concat!(
                r#""dict":{routes},"routeToCode":{routes},"codeToRoute":{codes},"#,
                r#""dictVersion":"{version}""#
            ),
            routes = route_to_code_json,
            codes = code_to_route_json,
            version = version,
        )
    }

    fn build(entries: impl Iterator<Item = (String, u32)>) -> Result<Self, DictionaryError> {
        let mut routes: Vec<Option<Arc<str>>> = vec![None];
        let mut codes = FxHashMap::default();
        let mut route_to_code = Map::new();
        for (route, code) in entries {
            let code = u16::try_from(code).ok().filter(|&code| code > 0);
            let code = code.ok_or(DictionaryError::CodeOutOfRange)?;
            let index = usize::from(code);
            if index >= routes.len() {
                routes.resize(index + 1, None);
            }
            if routes[index].is_some() {
                return Err(DictionaryError::CodeTwice { code });
            }
            let name: Arc<str> = route.as_str().into();
            codes.insert(name.clone(), code);
            routes[index] = Some(name);
            route_to_code.insert(route, code.into());
        }
        let code_to_route_json = code_to_route_json(&routes);
        let route_to_code_json = Value::Object(in_js_order(route_to_code)).to_string();
        let version = fingerprint(&[&route_to_code_json]);
        Ok(Self { routes, codes, route_to_code_json, code_to_route_json, version })
    }
}

fn code_to_route_json(routes: &[Option<Arc<str>>]) -> String {
    let code_to_route = routes.iter().enumerate().filter_map(|(code, route)| {
        let route = route.as_deref()?;
        Some((code.to_string(), Value::from(route)))
    });
    Value::Object(code_to_route.collect()).to_string()
}

/// Routes that cannot be numbered; the operator is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DictionaryError {
    /// A code is 0 or above 65535, or there are more routes than codes.
    CodeOutOfRange,
    /// Two routes claim one code.
    CodeTwice {
        /// The code.
        code: u16,
    },
    /// An imported route has two codes.
    RouteTwice {
        /// The lower of its codes.
        code: u16,
    },
}

impl fmt::Display for DictionaryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CodeOutOfRange => f.write_str("a route code is not between 1 and 65535"),
            Self::CodeTwice { code } => write!(f, "two routes claim the code {code}"),
            Self::RouteTwice { code } => write!(f, "the route of code {code} has another code"),
        }
    }
}

impl Error for DictionaryError {}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Dictionary, DictionaryError};

    const NONE: [&str; 0] = [];

    #[test]
    fn handler_routes_are_sorted_by_utf16_units_and_user_routes_are_not() {
        // U+1F600 begins with the surrogate D83D, which sorts before U+FF5E; its scalar value would
        // sort behind it.
        let dictionary = Dictionary::new(["\u{ff5e}", "\u{1f600}", "b"], ["z", "a"]).unwrap();
        let routes: Vec<_> = (1..=5).filter_map(|code| dictionary.route(code)).collect();
        assert_eq!(routes, ["b", "\u{1f600}", "\u{ff5e}", "z", "a"]);
        assert_eq!((dictionary.route(0), dictionary.route(6)), (None, None));
        assert_eq!(dictionary.code("c"), None);
    }

    #[test]
    fn a_route_listed_twice_has_two_codes_and_leads_to_the_last() {
        let dictionary = Dictionary::new(["a"], ["x", "a"]).unwrap();
        assert_eq!(dictionary.code("a"), Some(3));
        assert_eq!((dictionary.route(1), dictionary.route(3)), (Some("a"), Some("a")));
        assert_eq!(dictionary.route_to_code_json(), r#"{"a":3,"x":2}"#);
        assert_eq!(dictionary.code_to_route_json(), r#"{"1":"a","2":"x","3":"a"}"#);
        assert_eq!(dictionary.len(), 2);
    }

    #[test]
    #[cfg_attr(miri, ignore = "makes 131,071 routes; with fewer it would show nothing")]
    fn every_code_can_be_used_and_none_beyond() {
        let user = |count: u32| (0..count).map(|route| format!("r{route}"));
        let dictionary = Dictionary::new(NONE, user(65_535)).unwrap();
        assert_eq!(dictionary.route(u16::MAX), Some("r65534"));
        let error = Dictionary::new(NONE, user(65_536)).unwrap_err();
        assert_eq!(error, DictionaryError::CodeOutOfRange);
    }

    #[test]
    fn an_imported_map_keeps_codes_order_and_version() {
        let numbered = Dictionary::new(["b.h.m", "a.h.m"], ["onChat"]).unwrap();
        let map = [("a.h.m", 1), ("b.h.m", 2), ("onChat", 3)];
        let imported = Dictionary::from_map(map).unwrap();
        assert_eq!(imported.version(), numbered.version());
        assert_eq!(imported.handshake_members(), numbered.handshake_members());

        let gaps = Dictionary::from_map([("x", 700), ("5", 2)]).unwrap();
        assert_eq!((gaps.route(700), gaps.route(1)), (Some("x"), None));
        assert_eq!(gaps.route_to_code_json(), r#"{"5":2,"x":700}"#);
        assert_eq!(gaps.code_to_route_json(), r#"{"2":"5","700":"x"}"#);
    }

    #[test]
    fn a_map_that_contradicts_itself_is_refused() {
        for (map, error) in [
            ([("a", 1), ("b", 1)], DictionaryError::CodeTwice { code: 1 }),
            ([("a", 1), ("a", 2)], DictionaryError::RouteTwice { code: 1 }),
            ([("a", 0), ("b", 1)], DictionaryError::CodeOutOfRange),
            ([("a", 1), ("b", 65_536)], DictionaryError::CodeOutOfRange),
        ] {
            assert_eq!(Dictionary::from_map(map).unwrap_err(), error);
        }
    }

    #[test]
    fn the_tables_of_a_handshake_are_read_as_they_were_made() {
        let made = Dictionary::new(["b.h.m", "a.h.m"], ["onChat", "b.h.m"]).unwrap();
        let sys = format!("{{{}}}", made.handshake_members());
        let sys: Value = serde_json::from_str(&sys).unwrap();
        let read = Dictionary::from_handshake(&sys).unwrap().expect("there are tables");
        assert_eq!(read.handshake_members(), made.handshake_members());
        assert_eq!((read.code("b.h.m"), read.route(2)), (Some(4), Some("b.h.m")));
    }

    #[test]
    fn a_handshake_without_tables_has_none_and_contradictions_are_refused() {
        for sys in [json!({}), json!({"useDict": true}), json!(null), json!({"dict": 7})] {
            assert!(Dictionary::from_handshake(&sys).unwrap().is_none(), "{sys}");
        }
        for (sys, error) in [
            (json!({"dict": {"a": 0}}), DictionaryError::CodeOutOfRange),
            (json!({"routeToCode": {"a": "1"}}), DictionaryError::CodeOutOfRange),
            (json!({"dict": {"a": 1_u64 << 32}}), DictionaryError::CodeOutOfRange),
            (json!({"dict": {"a": 1, "b": 1}}), DictionaryError::CodeTwice { code: 1 }),
            (
                json!({"dict": {"a": 1}, "codeToRoute": {"1": "b"}}),
                DictionaryError::CodeTwice { code: 1 },
            ),
            (
                json!({"dict": {"a": 1}, "codeToRoute": {"65536": "b"}}),
                DictionaryError::CodeOutOfRange,
            ),
        ] {
            assert_eq!(Dictionary::from_handshake(&sys).unwrap_err(), error, "{sys}");
        }
    }

    #[test]
    fn the_handshake_members_stand_in_pomelos_order() {
        let dictionary = Dictionary::new(NONE, ["onA"]).unwrap();
        assert_eq!(
            dictionary.handshake_members(),
            concat!(
                r#""dict":{"onA":1},"routeToCode":{"onA":1},"codeToRoute":{"1":"onA"},"#,
                r#""dictVersion":"0lSxsw0NQDao5p+LUZFI7A==""#
            )
        );
    }
}

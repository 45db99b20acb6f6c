//! Names and routes that are a secret's.

/// Parts of names whose values are secret, of alphabetic characters alone.
const NAMES: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "credential",
    "authorization",
    "cookie",
    "apikey",
    "privatekey",
];
/// Parts of routes whose bodies are secret.
const ROUTES: [&str; 9] =
    ["login", "logon", "signin", "signup", "register", "auth", "passw", "token", "credential"];
/// Beginnings of methods whose bodies are secret: `connector.entryHandler.enter` logs in, by habit.
const METHODS: [&str; 2] = ["entry", "enter"];

/// The secrets of a game, besides those that everybody has.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    /// Names of JSON members, as they are compared.
    names: Vec<String>,
    /// Parts of routes, as they are compared.
    routes: Vec<String>,
}

impl Secrets {
    pub(crate) fn new(names: &[String], routes: &[String]) -> Self {
        let plain = |texts: &[String]| {
            let plain = texts.iter().map(|text| {
                let mut name = String::new();
                push_plain(&mut name, text);
                name
            });
            plain.filter(|name| !name.is_empty()).collect()
        };
        Self { names: plain(names), routes: plain(routes) }
    }

    /// True if the value of a member of this name is secret; the name as [`push_plain`] has it, as
    /// are those of the others.
    pub(super) fn has_name(&self, name: &str) -> bool {
        NAMES.iter().any(|secret| name.contains(secret))
            || self.names.iter().any(|secret| secret == name)
    }

    /// True if bodies of this route are secret, by any part of it.
    pub(super) fn has_route(&self, route: &str) -> bool {
        ROUTES.iter().any(|it| route.contains(it))
            || self.routes.iter().any(|it| route.contains(it))
    }

    /// True if bodies for a method of this name are secret, whatever its handler.
    pub(super) fn has_method(&self, method: &str) -> bool {
        METHODS.iter().any(|it| method.starts_with(it))
    }
}

/// Appends a name as it is compared.
pub(super) fn push_plain(name: &mut String, text: &str) {
    name.extend(text.chars().filter(|it| it.is_alphanumeric()).flat_map(char::to_lowercase));
}

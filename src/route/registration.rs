//! Mistakes in what an embedder registers, found while the threads of an engine are set up.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::schemas::Schemas;
use super::table::RouteTable;
use crate::wire::message::ROUTE_BYTES_MAX;

/// A handler or a schema that nobody could reach as it is registered (made by the embedder). The
/// text says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Misregistration {
    /// The server type of the shards or workers where that was found.
    pub server_type: Arc<str>,
    /// The route as it was given; of mail, its type.
    pub route: String,
    /// The fault with it.
    pub mistake: Mistake,
}

/// The fault with a handler or a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Mistake {
    /// The route is not of three parts with something in each.
    Malformed,
    /// The path of a stateful handler, which has its server type before it, is not of two parts.
    NoPath,
    /// The route is longer than the 255 bytes that a message can hold.
    TooLong,
    /// The method is `constructor`, for which clients are kicked as attackers.
    Constructor,
    /// The route is of another server type, whose messages do not come here.
    OtherType,
    /// The route has a handler already.
    Duplicate,
    /// The schema is of a request that has no handler.
    SchemaWithoutHandler,
    /// The schema is of a request that no server of this engine is for.
    SchemaWithoutServer,
    /// The type of mail has a receiver already.
    DuplicateMail,
    /// The filter is a global one, which sees nothing on a worker.
    GlobalFilter,
    /// A worker is told of no session that opens.
    OpenedOnWorker,
    /// Mail goes to workers, and this is registered where clients are.
    MailOnShard,
}

impl fmt::Display for Misregistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server_type, route, mistake } = self;
        write!(f, "`{route}` on `{server_type}` ")?;
        match mistake {
            Mistake::Malformed => {
                f.write_str("is no route of three parts: write ")?;
                match route.split_once('.') {
                    Some((handler, method)) if !handler.is_empty() && is_part(method) => {
                        write!(f, "`{server_type}.{route}`")
                    }
                    _ => write!(f, "`{server_type}.handler.method`"),
                }
            }
            Mistake::NoPath => write!(
                f,
                "is no path of two parts: write `handler.method`, as `{server_type}.` is implied"
            ),
            Mistake::TooLong => write!(f, "is too long: write at most {ROUTE_BYTES_MAX} bytes"),
            Mistake::Constructor => {
                f.write_str("gets its clients kicked, as by Pomelo: give the method another name")
            }
            Mistake::OtherType => {
                let (other, rest) = route.split_once('.').unwrap_or((route, ""));
                write!(
                    f,
                    "gets no message, as those of `{other}` go elsewhere: write \
                     `{server_type}.{rest}`, or register it where `{other}` is handled"
                )
            }
            Mistake::Duplicate => f.write_str("has two handlers: remove one"),
            Mistake::SchemaWithoutHandler => {
                f.write_str("has a schema of its requests but no handler: add one, or remove it")
            }
            Mistake::SchemaWithoutServer => f.write_str(
                "has a schema of its requests but no server: forward its server type, or remove it",
            ),
            Mistake::DuplicateMail => f.write_str("is received as mail twice: remove one"),
            Mistake::GlobalFilter => f.write_str(
                "sees nothing, as global filters run where clients are: give it to \
                 `Builder::global_filter`, or write `filter`",
            ),
            Mistake::OpenedOnWorker => f.write_str(
                "is told of nothing, as sessions open where clients are: give it to \
                 `Builder::register`, and send the worker mail from there",
            ),
            Mistake::MailOnShard => f.write_str(
                "is received by nobody, as mail goes to workers: give it to `Workers::new` or \
                 `Workers::stateful`",
            ),
        }
    }
}

/// True if that may stand between the dots of a route.
fn is_part(text: &str) -> bool {
    !text.is_empty() && !text.contains('.')
}

/// The mistakes that the threads of an engine have found.
#[derive(Debug, Default)]
pub(crate) struct Mistakes(Mutex<Vec<Misregistration>>);

impl Mistakes {
    /// Adds one, unless another thread has found the same.
    pub(crate) fn add(&self, found: Misregistration) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains(&found) {
            all.push(found);
        }
    }

    /// All of them in an order that does not depend on the threads.
    pub(crate) fn take(&self) -> Vec<Misregistration> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.sort();
        std::mem::take(&mut all)
    }
}

/// The reason why no message would reach a handler of that route on a server of that type.
pub(crate) fn mistake_of(server_type: &str, route: &str) -> Option<Mistake> {
    let mut parts = route.split('.');
    let (Some(first), Some(handler), Some(method), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Some(Mistake::Malformed);
    };
    if [first, handler, method].contains(&"") {
        return Some(Mistake::Malformed);
    }
    if route.len() > ROUTE_BYTES_MAX {
        return Some(Mistake::TooLong);
    }
    if method == "constructor" {
        return Some(Mistake::Constructor);
    }
    (first != server_type).then_some(Mistake::OtherType)
}

/// The schemas of requests of a server type that no handler there takes. Schemas of answers and
/// pushes have no handler, so nothing can be told of them.
pub(crate) fn schemas_without_handler(
    routes: &RouteTable,
    schemas: &Schemas,
    server_type: &Arc<str>,
    has_handler: impl Fn(&str) -> bool,
    mistakes: &Mistakes,
) {
    for route in request_schemas(routes, schemas) {
        let is_own = route.split('.').next() == Some(server_type);
        if is_own && !has_handler(route) {
            let mistake = Mistake::SchemaWithoutHandler;
            mistakes.add(Misregistration {
                server_type: Arc::clone(server_type),
                route: route.to_owned(),
                mistake,
            });
        }
    }
}

/// The schemas of requests of server types that no server is for.
pub(crate) fn schemas_without_server(
    routes: &RouteTable,
    schemas: &Schemas,
    server_type: &Arc<str>,
    is_served: impl Fn(&str) -> bool,
    mistakes: &Mistakes,
) {
    for route in request_schemas(routes, schemas) {
        let other = route.split('.').next().unwrap_or_default();
        if other != &**server_type && !is_served(other) {
            let mistake = Mistake::SchemaWithoutServer;
            mistakes.add(Misregistration {
                server_type: Arc::clone(server_type),
                route: route.to_owned(),
                mistake,
            });
        }
    }
}

fn request_schemas<'r>(routes: &'r RouteTable, schemas: &Schemas) -> impl Iterator<Item = &'r str> {
    let has_schema = |route: &&str| {
        let id = routes.find(route.as_bytes());
        id.is_some_and(|id| schemas.client(id).is_some())
    };
    routes.iter().map(|entry| &*entry.text).filter(has_schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(route: &str) -> String {
        let mistake = mistake_of("chat", route).unwrap();
        let (server_type, route) = ("chat".into(), route.to_owned());
        Misregistration { server_type, route, mistake }.to_string()
    }

    #[test]
    fn a_mistake_tells_what_to_write() {
        assert_eq!(mistake_of("chat", "chat.chatHandler.send"), None);
        for (route, advice) in [
            ("chatHandler.send", "write `chat.chatHandler.send`"),
            ("send", "write `chat.handler.method`"),
            ("", "write `chat.handler.method`"),
            ("chat..send", "write `chat.handler.method`"),
            ("chat.chatHandler.", "write `chat.handler.method`"),
            ("chat.a.b.c", "write `chat.handler.method`"),
            ("connector.a.b", "write `chat.a.b`, or register it where `connector` is handled"),
            ("chat.a.constructor", "another name"),
            (&format!("chat.a.{}", "b".repeat(249)), "at most 255 bytes"),
        ] {
            assert!(text(route).contains(advice), "{}", text(route));
        }
    }

    #[test]
    fn threads_that_find_the_same_tell_it_once() {
        let mistakes = Mistakes::default();
        for route in ["b", "a", "b"] {
            let (server_type, mistake) = ("chat".into(), Mistake::Malformed);
            mistakes.add(Misregistration { server_type, route: route.to_owned(), mistake });
        }
        let routes: Vec<_> = mistakes.take().into_iter().map(|found| found.route).collect();
        assert_eq!(routes, ["a", "b"]);
    }
}

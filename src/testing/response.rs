//! The answer to a request, there or to come.

use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

use super::shared::Shared;

/// The answer to a request of a [`Client`](super::Client)'s, which may have yet to come.
///
/// ```
/// use serde_json::json;
/// use shaddock::{Engine, Reply, testing};
///
/// let builder = Engine::builder().handler("connector.a.hello", |_, _| Reply::json("hello"));
/// let t = testing::Engine::new(builder);
/// let amy = t.connect();
/// let answers = [(); 2].map(|()| amy.send_request("connector.a.hello", json!({})));
/// assert!(answers.iter().all(testing::Response::is_there));
/// let [first, second] = answers;
/// assert_eq!(first.value(), "hello");
/// assert_eq!(second.bytes(), br#""hello""#);
/// ```
#[must_use = "the answer is there once it is looked at"]
pub struct Response {
    shared: Rc<Shared>,
    /// The place of the client's connection.
    at: usize,
    id: u32,
    route: String,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Response").field("route", &self.route).finish_non_exhaustive()
    }
}

impl Response {
    pub(super) fn new(shared: Rc<Shared>, at: usize, id: u32, route: &str) -> Self {
        Self { shared, at, id, route: route.to_owned() }
    }

    /// True if the answer has come.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.shared.settled().socket(self.at).has_answer(self.id)
    }

    /// Waits for the answer, as [`Client::request`](super::Client::request) does.
    ///
    /// # Panics
    /// There is none, or it is no JSON.
    #[must_use]
    #[track_caller]
    pub fn value(self) -> Value {
        let route = self.route.clone();
        let bytes = self.bytes();
        serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            let text = String::from_utf8_lossy(&bytes);
            panic!("the answer to `{route}` is no JSON ({error}): {text}")
        })
    }

    /// Waits for the answer and gives its bytes.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    #[track_caller]
    pub fn bytes(self) -> Vec<u8> {
        let take = || self.shared.world().socket(self.at).take_answer(self.id);
        // Without a future nobody is left who could answer.
        match self.shared.wait(take, |world| world.has_futures()) {
            Some(bytes) => bytes,
            None => panic!("`{}` was not answered: {}", self.route, self.hint()),
        }
    }

    /// Lets time pass until the answer is there, and no further; waits for it as
    /// [`Self::value`] does.
    ///
    /// ```
    /// use std::time::Duration;
    /// use serde_json::json;
    /// use shaddock::{Engine, Reply, testing};
    ///
    /// let builder = Engine::builder().async_handler("connector.a.later", async |_, session| {
    ///     session.context().sleep(Duration::from_secs(3)).await;
    ///     Reply::empty()
    /// });
    /// let t = testing::Engine::new(builder);
    /// let answer = t.connect().send_request("connector.a.later", json!({}));
    /// assert_eq!(answer.within(Duration::from_secs(60)), json!({}));
    /// assert_eq!(t.now(), Duration::from_secs(3));
    /// ```
    ///
    /// # Panics
    /// There is no answer by then, or it is no JSON.
    #[must_use]
    #[track_caller]
    pub fn within(self, time: Duration) -> Value {
        let (at, id) = (self.at, self.id);
        self.shared.advance(time, |world| !world.socket(at).has_answer(id));
        self.value()
    }

    /// Says why there is no answer.
    fn hint(&self) -> String {
        let mut world = self.shared.world();
        let socket = world.socket(self.at);
        if self.id == 0 {
            return "nobody answers a notify".to_owned();
        }
        if socket.is_closed || socket.is_ended {
            return socket.ending();
        }
        if !world.has_futures() {
            return "no future is left that could answer it".to_owned();
        }
        format!(
            "time stands still for a request, so a handler that sleeps needs `Response::within` \
             or `Engine::advance`, and one that waits for another client needs `send_request`; \
             other threads were waited for {:?} (`Setup::patience`)",
            self.shared.patience()
        )
    }
}

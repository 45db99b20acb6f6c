//! Answers and pushes, as a program receives them.

use std::fmt;

use serde::Deserialize;

/// The answer to a request.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    body: Vec<u8>,
}

impl Answer {
    pub(super) fn new(body: Vec<u8>) -> Self {
        Self { body }
    }

    /// The body: JSON for all games but those that have another coding of their own. What came by
    /// a schema is JSON again.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body, taken.
    ///
    /// ```
    /// # use shaddock::client::Answer;
    /// # fn keep(answer: Answer) -> Vec<u8> {
    /// println!("{}", String::from_utf8_lossy(answer.body()));
    /// answer.into_body()
    /// # }
    /// ```
    #[must_use]
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// Reads the body as JSON; `T` may borrow from it.
    ///
    /// # Errors
    /// The error of `serde_json`.
    ///
    /// # Examples
    /// ```
    /// # use shaddock::client::Answer;
    /// #[derive(serde::Deserialize)]
    /// struct Entry<'a> {
    ///     code: u16,
    ///     room: &'a str,
    /// }
    ///
    /// # fn read(answer: &Answer) -> Result<(), serde_json::Error> {
    /// let entry: Entry<'_> = answer.json()?;
    /// println!("{} {}", entry.code, entry.room);
    /// # Ok(())
    /// # }
    /// ```
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.body)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answer").field(&String::from_utf8_lossy(&self.body)).finish()
    }
}

/// A message that the server has sent unasked.
///
/// ```
/// # use shaddock::client::Push;
/// # fn show(push: &Push) -> Result<(), serde_json::Error> {
/// match push.route() {
///     "onChat" => println!("{}", push.json::<&str>()?),
///     route => println!("{route} with {} bytes", push.body().len()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Push {
    route: String,
    body: Vec<u8>,
}

impl Push {
    pub(super) fn new(route: String, body: Vec<u8>) -> Self {
        Self { route, body }
    }

    /// The route, such as `onChat`; a code of the dictionary is looked up already.
    #[must_use]
    pub fn route(&self) -> &str {
        &self.route
    }

    /// The body, as [`Answer::body`].
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Reads the body as JSON; `T` may borrow from it.
    ///
    /// # Errors
    /// The error of `serde_json`.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.body)
    }

    /// The memory that the push takes while it waits.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.route.len() + self.body.len()
    }
}

impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        f.debug_struct("Push").field("route", &self.route).field("body", &body).finish()
    }
}

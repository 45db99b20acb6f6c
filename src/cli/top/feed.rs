//! The thread that asks the admin server, so that keys never wait for it.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;

use super::sort::Sort;
use crate::cli::ctl::client::{Client, escape};

/// Sessions of the list.
const SESSIONS: u16 = 200;

/// The two ends of the thread. It ends behind this.
pub(super) struct Feed {
    wishes: Sender<Wish>,
    seen: Receiver<Seen>,
}

/// Something to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    Sort(Sort),
    /// One session beside the list, or none.
    Show(Option<String>),
    Kick(String),
}

/// An answer.
#[derive(Debug)]
pub(super) enum Seen {
    /// The figures, the sessions, and the session that was asked for; none if it is gone.
    All { status: Value, sessions: Value, one: Option<Value> },
    /// The outcome of a wish.
    Told(String),
    /// There was no answer.
    Failed(String),
}

impl Feed {
    pub(super) fn start(client: Client, sort: Sort, every: Duration) -> io::Result<Self> {
        let ((wishes, asked), (to, seen)) = (channel(), channel());
        thread::Builder::new()
            .name("shaddock-top".into())
            .spawn(move || run(&client, sort, every, &asked, &to))?;
        Ok(Self { wishes, seen })
    }

    pub(super) fn ask(&self, wish: Wish) {
        // The thread ends after this only.
        self.wishes.send(wish).ok();
    }

    pub(super) fn seen(&self) -> impl Iterator<Item = Seen> {
        self.seen.try_iter()
    }
}

fn run(client: &Client, sort: Sort, every: Duration, asked: &Receiver<Wish>, to: &Sender<Seen>) {
    let (mut sort, mut one) = (sort, None);
    loop {
        if to.send(look(client, sort, one.as_deref())).is_err() {
            return;
        }
        let next = Instant::now() + every;
        let wish = match asked.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => continue,
            Ok(wish) => wish,
        };
        for wish in std::iter::once(wish).chain(asked.try_iter()) {
            match wish {
                Wish::Sort(by) => sort = by,
                Wish::Show(session) => one = session,
                Wish::Kick(id) => drop(to.send(kick(client, &id))),
            }
        }
    }
}

/// Looks once.
pub(super) fn look(client: &Client, sort: Sort, one: Option<&str>) -> Seen {
    let list = format!("/sessions?sort={}&limit={SESSIONS}", sort.name());
    let looked = (|| {
        let one = match one {
            Some(id) => match ask(client, "GET", &format!("/sessions/{}", escape(id)))? {
                Ok(session) => Some(session),
                Err(_) => ended(client, id)?,
            },
            None => None,
        };
        let needed = |path: &str| ask(client, "GET", path)?.map_err(anyhow::Error::msg);
        anyhow::Ok(Seen::All { status: needed("/status")?, sessions: needed(&list)?, one })
    })();
    looked.unwrap_or_else(|error| Seen::Failed(format!("{error:#}")))
}

/// The end of a session, if it is still known.
fn ended(client: &Client, id: &str) -> anyhow::Result<Option<Value>> {
    let closed = ask(client, "GET", &format!("/closed?id={}", escape(id)))?.ok();
    Ok(closed.and_then(|closed| closed.get("closed")?.get(0).cloned()))
}

fn kick(client: &Client, id: &str) -> Seen {
    match ask(client, "POST", &format!("/sessions/{}/kick", escape(id))) {
        Ok(Ok(_)) => Seen::Told(format!("session {id} was kicked")),
        Ok(Err(error)) => Seen::Told(error),
        Err(error) => Seen::Told(format!("{error:#}")),
    }
}

/// An answer, or the text with which it was refused.
fn ask(client: &Client, method: &str, path: &str) -> anyhow::Result<Result<Value, String>> {
    let answer = client.ask(method, path)?;
    let value: Value = serde_json::from_str(answer.text()?).context("the answer is no JSON")?;
    Ok(match value.get("error").and_then(Value::as_str) {
        Some(error) => Err(error.to_owned()),
        None => Ok(value),
    })
}

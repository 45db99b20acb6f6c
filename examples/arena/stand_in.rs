//! A stand-in for the account service, so that the example runs by itself: everybody's token is
//! `pass-` and their name, and scores are kept until the process ends.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;

use crate::accounts::Score;
use crate::http::{self, Answer, Asked};

/// Starts it.
pub(crate) fn start(address: &str) -> io::Result<SocketAddr> {
    let sums = Mutex::new(BTreeMap::new());
    http::serve(address, move |asked| answer(asked, &sums))
}

fn answer(asked: &Asked<'_>, sums: &Mutex<BTreeMap<String, u64>>) -> Answer {
    match (asked.method, asked.path) {
        ("GET", path) => match path.strip_prefix("/tokens/pass-").filter(|name| is_name(name)) {
            Some(name) => Answer::text(name.to_owned()),
            None => Answer::code(404),
        },
        ("POST", "/scores") => {
            let Ok(scores) = serde_json::from_str::<Vec<Score>>(asked.body) else {
                return Answer::code(400);
            };
            let mut sums = sums.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            for (name, score) in scores {
                let sum = sums.entry(name.clone()).or_default();
                *sum += u64::from(score);
                println!("accounts: {name} has {sum}");
            }
            Answer::code(200)
        }
        _ => Answer::code(404),
    }
}

fn is_name(name: &str) -> bool {
    (1..=16).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

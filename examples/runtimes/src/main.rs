//! Calls from handlers through tokio: a login asks an account service by HTTP (reqwest), and a
//! worker keeps scores in SQLite (sqlx). `docs/runtimes.md` tells what works where.
//!
//! Run it with the service's address, which answers `GET` with `{"name":"…"}` to whom it knows by
//! the bearer token; test it without a server of any kind running:
//!
//! ```text
//! cargo run --manifest-path examples/runtimes/Cargo.toml -- http://127.0.0.1:7000/account
//! cargo test --manifest-path examples/runtimes/Cargo.toml
//! ```

use std::error::Error;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use shaddock::{Builder, Drain, Engine, OwnedRequest, Reply, Session, Workers};
use sqlx::SqlitePool;
use tokio::runtime::Handle;

/// Whatever handlers need of the world outside. Cheap to clone, once for each call.
#[derive(Clone)]
struct Services {
    tokio: Handle,
    http: reqwest::Client,
    /// The address of the account service.
    accounts: String,
    scores: SqlitePool,
}

/// An account, as its service tells of it.
#[derive(Deserialize)]
struct Account {
    name: String,
}

const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS score (name TEXT PRIMARY KEY, points INTEGER NOT NULL)";
const ADD: &str = "INSERT INTO score (name, points) VALUES (?, ?) \
    ON CONFLICT (name) DO UPDATE SET points = points + excluded.points RETURNING points";

fn game(services: Services) -> Builder {
    let of_workers = services.clone();
    let scores = Workers::new(1, move |handlers| {
        let services = of_workers.clone();
        handlers.async_handler("score.scoreHandler.add", move |request, session| {
            add_points(services.clone(), request, session)
        });
    });
    Engine::builder()
        .async_handler("connector.entryHandler.login", move |request, session| {
            log_in(services.clone(), request, session)
        })
        .forward("score", scores)
}

/// Runs on the shard, but for the call, which runs on tokio's threads.
async fn log_in(services: Services, request: OwnedRequest, mut session: Session) -> Reply<'static> {
    let token = request.value()["token"].as_str().unwrap_or_default().to_owned();
    let Services { tokio, http, accounts, .. } = services;
    let account = match tokio.spawn(account(http, accounts, token)).await {
        Ok(Ok(account)) => account,
        Ok(Err(error)) if error.status().is_some() => return refusal(401),
        _ => return refusal(503),
    };
    match session.bind(account.name).await {
        Ok(()) => Reply::json(&json!({ "code": 200, "uid": session.uid() })),
        Err(_) => refusal(409),
    }
}

/// Runs on the worker, but for the query.
async fn add_points(services: Services, request: OwnedRequest, session: Session) -> Reply<'static> {
    let Some(name) = session.uid().map(|uid| uid.text().to_owned()) else { return refusal(401) };
    let points = request.value()["points"].as_i64().unwrap_or_default();
    match services.tokio.spawn(add(services.scores, name, points)).await {
        Ok(Ok(points)) => Reply::json(&json!({ "code": 200, "points": points })),
        _ => refusal(503),
    }
}

async fn account(http: reqwest::Client, url: String, token: String) -> reqwest::Result<Account> {
    http.get(url).bearer_auth(token).send().await?.error_for_status()?.json().await
}

async fn add(scores: SqlitePool, name: String, points: i64) -> sqlx::Result<i64> {
    sqlx::query_scalar(ADD).bind(name).bind(points).fetch_one(&scores).await
}

fn refusal(code: u16) -> Reply<'static> {
    Reply::error_json(&json!({ "code": code }))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let accounts = std::env::args().nth(1).ok_or("give the account service's address")?;
    let scores = SqlitePool::connect("sqlite:scores.db?mode=rwc").await?;
    sqlx::query(TABLE).execute(&scores).await?;
    let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
    let services = Services { tokio: Handle::current(), http, accounts, scores };
    let engine = game(services).listen("127.0.0.1:3010").start()?;
    println!("listening on {}", engine.local_addr());
    tokio::signal::ctrl_c().await?;
    // It blocks, while tokio's other threads finish what handlers wait for.
    engine.shutdown(Drain::within(Duration::from_secs(5)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use shaddock::testing;
    use sqlx::sqlite::SqlitePoolOptions;

    use super::*;

    /// Answers requests one by one: `{"name":"amy"}` to the token `good`, else 401.
    fn account_service() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                    head.push(byte[0]);
                }
                let is_good = String::from_utf8_lossy(&head).contains("Bearer good");
                let answer = match is_good {
                    true => "HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"name\":\"amy\"}",
                    false => "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n",
                };
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        format!("http://{address}/account")
    }

    #[test]
    fn accounts_and_scores_come_from_elsewhere() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let scores = runtime.block_on(async {
            // Each connection would have a database of its own.
            let pool = SqlitePoolOptions::new().max_connections(1);
            let pool = pool.connect("sqlite::memory:").await.unwrap();
            sqlx::query(TABLE).execute(&pool).await.unwrap();
            pool
        });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let (tokio, accounts) = (runtime.handle().clone(), account_service());
        let t = testing::Engine::new(game(Services { tokio, http, accounts, scores }));
        let (amy, stranger) = (t.connect(), t.connect());
        let login = |client: &testing::Client, token: &str| {
            client.request("connector.entryHandler.login", json!({ "token": token }))
        };
        assert_eq!(login(&stranger, "bad"), json!({ "code": 401 }));
        assert_eq!(login(&amy, "good"), json!({ "code": 200, "uid": "amy" }));
        let add = |client: &testing::Client, points: i64| {
            client.request("score.scoreHandler.add", json!({ "points": points }))
        };
        assert_eq!(add(&stranger, 1), json!({ "code": 401 }));
        assert_eq!(add(&amy, 5), json!({ "code": 200, "points": 5 }));
        assert_eq!(add(&amy, 7)["points"], 12);
        assert_eq!(t.now(), Duration::ZERO);
    }
}

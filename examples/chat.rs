//! A chat room: players log in on the connector and talk through a channel on a worker.
//!
//! The connector's handlers run on the shard that receives the client's bytes, so they must be
//! quick. The handlers of the server type `chat` run on threads of their own, the workers. Each
//! player's messages go to the same worker, chosen by uid.
//!
//! Run it, with an address if 127.0.0.1:3010 is taken:
//!
//! ```text
//! cargo run --release --example chat
//! ```
//!
//! Talk to it with any Pomelo client, here `pomelo-nodejsclient-websocket` from npm:
//!
//! ```text
//! const Pomelo = require('pomelo-nodejsclient-websocket');
//! const pomelo = new Pomelo();
//! pomelo.on('onChat', console.log);
//! pomelo.init({ host: '127.0.0.1', port: 3010 }, () =>
//!   pomelo.request('connector.entryHandler.enter', { uid: 'amy' }, () =>
//!     pomelo.request('chat.roomHandler.join', {}, () =>
//!       pomelo.notify('chat.roomHandler.say', { text: 'hello' }))));
//! ```

use std::error::Error;

use serde::Deserialize;
use serde_json::json;
use shaddock::{Engine, Handlers, OwnedRequest, Reply, Session, Workers};

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3010".into());
    let engine = Engine::builder()
        .listen(address)
        .async_handler("connector.entryHandler.enter", enter)
        // One worker, so that all players share its room. With several, a room would need a router
        // that sends all its players to the same worker.
        .forward("chat", Workers::new(1, chat))
        .start()?;
    println!("listening on {}", engine.local_addr());
    loop {
        std::thread::park();
    }
}

#[derive(Deserialize)]
struct Enter {
    uid: String,
}

/// Logs a player in.
async fn enter(request: OwnedRequest, mut session: Session) -> Reply<'static> {
    let Ok(Enter { uid }) = request.json() else {
        return Reply::json(&json!({"code": 400, "msg": "no uid"}));
    };
    match session.bind(uid).await {
        Ok(()) => Reply::json(&json!({"code": 200})),
        Err(error) => Reply::error_json(&json!({"code": 409, "msg": error.to_string()})),
    }
}

#[derive(Deserialize)]
struct Say {
    text: String,
}

/// Registers the worker's handlers. It runs on the worker's thread, so handlers may share state by
/// `Rc`.
fn chat(handlers: &mut Handlers) {
    handlers
        .handler("chat.roomHandler.join", |_, session| {
            let Some(uid) = session.uid() else { return Reply::error() };
            let room = session.context().channel("room");
            room.leave(uid);
            room.add(uid.clone());
            Reply::json(&json!({"code": 200, "users": room.members()}))
        })
        .handler("chat.roomHandler.say", |request, session| {
            let Ok(Say { text }) = request.json() else { return Reply::error() };
            let message = json!({"from": session.uid(), "text": text}).to_string();
            // The push is on its way, whether or not the result, which names failed deliveries, is
            // read.
            match session.context().channel("room").push("onChat", message.as_bytes()) {
                Ok(_) => Reply::json(&json!({"code": 200})),
                Err(error) => Reply::error_json(&json!({"code": 413, "msg": error.to_string()})),
            }
        })
        .on_session_closed(|session, context| {
            if let Some(uid) = session.uid() {
                context.channel("room").leave(uid);
            }
        });
}

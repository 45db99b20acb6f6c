//! The smallest connector: one handler that returns the body it receives.
//!
//! Run it, with an address if 127.0.0.1:3010 is taken:
//!
//! ```text
//! cargo run --release --example echo
//! ```
//!
//! Send it a handshake, an ACK and one request from Bash, without any client (the answer ends in
//! `{"a":1}`):
//!
//! ```text
//! exec 3<>/dev/tcp/127.0.0.1/3010
//! printf '\x01\x00\x00\x0a{"sys":{}}\x02\x00\x00\x00' >&3
//! printf '\x04\x00\x00\x24\x00\x01\x1aconnector.echoHandler.echo{"a":1}' >&3
//! timeout 1 cat <&3 | xxd
//! ```
//!
//! or with a Pomelo client, here `pomelo-nodejsclient-websocket` from npm:
//!
//! ```text
//! const Pomelo = require('pomelo-nodejsclient-websocket');
//! const pomelo = new Pomelo();
//! pomelo.init({ host: '127.0.0.1', port: 3010 }, () =>
//!   pomelo.request('connector.echoHandler.echo', { a: 1 }, console.log));
//! ```

use std::error::Error;

use shaddock::{Engine, Reply};

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3010".into());
    let engine = Engine::builder()
        .listen(address)
        .handler("connector.echoHandler.echo", |request, _| Reply::borrowed(request.body()))
        .start()?;
    println!("listening on {}", engine.local_addr());
    // The engine has threads of its own and runs until it is dropped or shut down.
    loop {
        std::thread::park();
    }
}

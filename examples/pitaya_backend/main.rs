//! The backend that `backend.rs` describes, as a program.
//!
//! ```sh
//! cargo run --release --example pitaya_backend -- nats://127.0.0.1:4222 127.0.0.1:2379 room room-1
//! ```

mod backend;

use backend::Options;

fn main() {
    let Some(options) = Options::parse(std::env::args().skip(1)) else {
        eprintln!("usage: pitaya_backend NATS_URL ETCD_HOST:PORT TYPE ID [--buffer MESSAGES]");
        std::process::exit(2);
    };
    backend::run(options);
}

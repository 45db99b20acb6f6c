//! Engines over loopback, by the public API and by the binary: a file for each promise. One program
//! for all of them, as each program takes its time to be linked; `cargo test --test it limits::`
//! runs those of one file.

#[cfg(feature = "admin")]
mod admin;
mod bad_input;
mod client;
mod connections;
#[cfg(feature = "crypto")]
mod crypto;
mod echo;
mod editions;
mod failures;
mod faults;
mod filters;
mod forward;
mod full;
mod handshakes;
mod ipv6;
mod late_ends;
mod lifecycle;
mod limits;
mod load;
mod logins;
#[cfg(feature = "cli")]
mod named_files;
mod pitaya_dialect;
mod proxy;
mod race;
#[cfg(feature = "admin")]
mod recorder;
#[cfg(feature = "cli")]
mod refused;
mod runtime;
#[cfg(feature = "cli")]
mod secrets;
#[cfg(feature = "cli")]
mod serve;
mod session_pushes;
mod sessions;
mod start_stop;
#[cfg(feature = "cli")]
mod steered;
#[cfg(feature = "tls")]
mod tls;
mod typed;
#[cfg(feature = "cli")]
mod unread_logs;
#[cfg(feature = "admin")]
mod watched;
mod websocket;

//! NATS's client protocol, without I/O (docs/protocol/pitaya.md, "NATS").

mod address;
mod frames;
mod info;
mod login;
mod outgoing;

pub(crate) use address::NatsAddress;
pub(crate) use frames::{Delivery, Frame, decode};
pub(crate) use info::ServerInfo;
pub(crate) use login::{NatsLogin, connect};
pub(crate) use outgoing::Outgoing;

//! NATS's client protocol, without I/O (docs/protocol/pitaya.md, "NATS").
//!
//! NATS's own client (`async-nats`) was weighed. It keeps a channel for each subscription, whose
//! first block takes 5 KiB whatever its capacity, and a connector has two subscriptions for each
//! user that is logged in. What it has queued is bounded by number, not in bytes, and each message
//! crosses a channel and a task. A subscription that all users share is not possible: in Pitaya's
//! subjects the uid is no token of its own.

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

//! From a shard to a worker and back, and between shards: lanes, doorbells, mail.

pub(crate) mod asks;
pub(crate) mod calls;
mod doorbell;
mod hub;
pub(crate) mod mail;
pub(crate) mod worker;
mod workers;

pub(crate) use doorbell::Doorbell;
pub(crate) use hub::{Hub, Party, Post};
pub use workers::{ServerId, Workers};
pub(crate) use workers::{Route, ServerType};

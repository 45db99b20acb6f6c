//! Shaddock, the connector tier of a Pomelo game cluster.

pub mod route;
pub mod wire;

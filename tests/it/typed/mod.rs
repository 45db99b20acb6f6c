//! What an embedder registers besides plain handlers, and mistakes in it.

mod handlers;
mod mail;
mod misregistered;
mod stateful;

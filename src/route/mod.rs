//! Route names and their dictionary codes.

mod dictionary;
#[cfg(feature = "engine")]
pub(crate) mod edition;
#[cfg(feature = "engine")]
pub(crate) mod edition_id;
#[cfg(feature = "engine")]
pub(crate) mod push;
#[cfg(feature = "engine")]
pub(crate) mod registration;
mod router;
#[cfg(feature = "engine")]
pub(crate) mod schemas;
#[cfg(feature = "engine")]
mod slow_consumer;
#[cfg(feature = "engine")]
pub(crate) mod table;

pub use dictionary::{Dictionary, DictionaryError};
#[cfg(feature = "engine")]
pub use push::PushError;
pub use router::{default_route, uid_text};
#[cfg(feature = "engine")]
pub use slow_consumer::SlowConsumer;

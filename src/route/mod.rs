//! Route names and their dictionary codes.

pub mod dictionary;
pub(crate) mod edition;
pub(crate) mod push;
pub(crate) mod registration;
pub mod router;
pub(crate) mod table;

pub use dictionary::{Dictionary, DictionaryError};
pub use push::{PushError, SlowConsumer};
pub use router::{default_route, uid_text};

//! Route names and their dictionary codes.

pub mod dictionary;
pub mod router;
pub(crate) mod table;

pub use dictionary::{Dictionary, DictionaryError};
pub use router::{default_route, uid_text};
pub use table::PushError;

//! The filters that come with Pomelo.

mod serial;
mod time;
mod timeout;
mod toobusy;

pub use serial::Serial;
pub use time::Time;
pub use timeout::Timeout;
pub use toobusy::TooBusy;

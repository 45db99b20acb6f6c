//! Warnings of what does nothing unless it is awaited, or handed on. Each pair of listings differs
//! in that alone: one compiles, the other does not.
//!
//! ```
//! #![deny(unused_must_use)]
//! async fn sleep(context: shaddock::Context) {
//!     let _ = context.sleep(std::time::Duration::from_secs(1)).await;
//! }
//! ```
//! ```compile_fail
//! #![deny(unused_must_use)]
//! async fn sleep(context: shaddock::Context) {
//!     context.sleep(std::time::Duration::from_secs(1));
//! }
//! ```
//!
//! ```
//! #![deny(unused_must_use)]
//! async fn bind(mut session: shaddock::Session) {
//!     let _ = session.bind("amy").await;
//! }
//! ```
//! ```compile_fail
//! #![deny(unused_must_use)]
//! async fn bind(mut session: shaddock::Session) {
//!     session.bind("amy");
//! }
//! ```
//!
//! ```
//! #![deny(unused_must_use)]
//! async fn unbind(mut session: shaddock::Session) {
//!     let _ = session.unbind("amy").await;
//! }
//! ```
//! ```compile_fail
//! #![deny(unused_must_use)]
//! async fn unbind(mut session: shaddock::Session) {
//!     session.unbind("amy");
//! }
//! ```
//!
//! ```
//! #![deny(unused_must_use)]
//! async fn figures(handle: shaddock::Handle) {
//!     let _ = handle.statistics_async().await;
//! }
//! ```
//! ```compile_fail
//! #![deny(unused_must_use)]
//! async fn figures(handle: shaddock::Handle) {
//!     handle.statistics_async();
//! }
//! ```
//!
//! ```
//! #![deny(unused_must_use)]
//! async fn turns(handle: shaddock::Handle) {
//!     let _ = handle.wait_for_turns_async().await;
//! }
//! ```
//! ```compile_fail
//! #![deny(unused_must_use)]
//! async fn turns(handle: shaddock::Handle) {
//!     handle.wait_for_turns_async();
//! }
//! ```
//!
//! ```
//! #![deny(unused_must_use)]
//! async fn task(context: shaddock::Context) {
//!     drop(context.task("save").spawn(async {}));
//! }
//! ```
//! ```compile_fail
//! #![deny(unused_must_use)]
//! async fn task(context: shaddock::Context) {
//!     context.task("save");
//! }
//! ```

//! The codes of close frames (RFC 6455 section 7.4.1).

/// Close code: the session has ended normally. Pomelo uses it for a kick too.
pub const CLOSE_NORMAL: u16 = 1000;
/// Close code: the server shuts down (RFC 6455 section 7.4.1). Clients connect again.
pub const CLOSE_GOING_AWAY: u16 = 1001;
/// Close code: the peer broke the WebSocket protocol or, above it, Pomelo's.
pub const CLOSE_PROTOCOL_ERROR: u16 = 1002;
/// Close code: a text is not UTF-8.
pub const CLOSE_BAD_TEXT: u16 = 1007;
/// Close code: a frame or message is longer than allowed.
pub const CLOSE_TOO_BIG: u16 = 1009;

//! The frames of a NATS server, for a fuzzer.

use bytes::BytesMut;

use crate::pitaya::nats::{Frame, ServerInfo, decode};

/// The frames of pieces that come one after the other, up to the first fault, and the bytes behind
/// the last whole one. A description of a server is read, too.
#[must_use]
pub fn frames<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, payload_bytes_max: usize) -> Decoded {
    let mut input = BytesMut::new();
    let mut decoded = Decoded::default();
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match decode(&mut input, payload_bytes_max) {
                Ok(Some(frame)) => {
                    if let Frame::Message(message) = &frame {
                        assert!(message.payload.len() <= payload_bytes_max);
                    }
                    if let Frame::Info(json) = &frame {
                        // No input may be too much for it.
                        drop(ServerInfo::parse(json));
                    }
                    decoded.frames.push(format!("{frame:?}"));
                }
                Ok(None) => break,
                Err(fault) => {
                    decoded.fault = Some(fault.to_string());
                    return decoded;
                }
            }
        }
    }
    decoded.bytes_left = input.len();
    decoded
}

/// All that was found in some input.
#[derive(Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decoded {
    /// The frames, as text.
    pub frames: Vec<String>,
    /// The fault behind them, if there is one.
    pub fault: Option<String>,
    /// Bytes of a frame that is not whole.
    pub bytes_left: usize,
}

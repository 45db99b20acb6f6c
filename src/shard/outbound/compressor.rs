//! Compression of what goes to clients of Pitaya's.

use crate::limits::turn::DEFLATED_PER_TURN;
use crate::wire::pitaya::{self, Compression, Deflater};

/// The compressor of a shard, and how much it may yet do in this turn.
pub(super) struct Compressor {
    deflater: Deflater,
    /// Bytes of answers that this turn may yet compress.
    left: usize,
}

/// The outcome for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compressed {
    /// It is shorter now.
    Shorter,
    /// It goes as it is.
    Plain,
    /// It goes as it is, since the turn has compressed enough.
    Skipped,
}

impl Default for Compressor {
    fn default() -> Self {
        Self { deflater: Deflater::default(), left: DEFLATED_PER_TURN }
    }
}

impl Compressor {
    pub(super) fn begin_turn(&mut self) {
        self.left = DEFLATED_PER_TURN;
    }

    /// The deflater, for a push or the answer to a handshake: these are not compressed on demand,
    /// or once.
    pub(super) fn deflater(&mut self) -> &mut Deflater {
        &mut self.deflater
    }

    /// Compresses an answer, where that makes it shorter and the turn has not compressed enough.
    pub(super) fn compress(
        &mut self,
        body: &[u8],
        compression: Compression,
        out: &mut Vec<u8>,
    ) -> Compressed {
        if !pitaya::is_worth_compressing(body.len(), compression) {
            return Compressed::Plain;
        }
        if self.left == 0 {
            return Compressed::Skipped;
        }
        self.left = self.left.saturating_sub(body.len());
        match self.deflater.compress(body, compression, out) {
            true => Compressed::Shorter,
            false => Compressed::Plain,
        }
    }
}

//! The bodies that are compressed.

/// The compression of sent bodies, where it makes them shorter.
#[allow(clippy::exhaustive_enums, reason = "a switch has two positions")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Nothing is compressed. Compressed messages from clients are read all the same.
    Off,
    /// Handshakes, and the bodies of responses and pushes, are compressed.
    #[default]
    On,
}

/// The shortest body that is compressed. zlib's header and checksum take 6 bytes and its block a
/// few more, so a few dozen bytes gain next to nothing. Beginning a stream takes a few microseconds
/// whatever its length, longer than the rest of a small message's way.
pub const COMPRESS_BYTES_MIN: usize = 256;
/// The longest body that is compressed. The shard serves nobody else meanwhile, and this much takes
/// about a millisecond.
pub const COMPRESS_BYTES_MAX: usize = 256 * 1024;

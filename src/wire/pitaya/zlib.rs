//! Bodies in zlib's format (RFC 1950), with bounds on what comes out.

use std::fmt;

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};

use super::{COMPRESS_BYTES_MAX, COMPRESS_BYTES_MIN, Compression};

/// Makes bodies shorter.
///
/// It holds a few hundred kilobytes once it has been used; one for each thread is enough.
#[derive(Debug, Default)]
pub struct Deflater {
    stream: Option<Box<Compress>>,
}

impl Deflater {
    /// Appends `input` compressed, if it is shorter then; else `out` is left as it was, and the
    /// answer is `false`.
    pub fn deflate(&mut self, input: &[u8], out: &mut Vec<u8>) -> bool {
        let stream = match &mut self.stream {
            Some(stream) => {
                stream.reset();
                stream
            }
            None => {
                self.stream.insert(Box::new(Compress::new(flate2::Compression::new(LEVEL), true)))
            }
        };
        let start = out.len();
        // A stream that does not end in this room is no shorter.
        out.resize(start + input.len().saturating_sub(1), 0);
        let status = stream.compress(input, &mut out[start..], FlushCompress::Finish);
        let is_shorter = matches!(status, Ok(Status::StreamEnd));
        let len = if is_shorter { stream.total_out() as usize } else { 0 };
        out.truncate(start + len);
        is_shorter
    }

    /// The same for the body of a message, where there is something to gain: not if it is off,
    /// shorter than [`COMPRESS_BYTES_MIN`] or longer than [`COMPRESS_BYTES_MAX`].
    pub fn compress(&mut self, body: &[u8], compression: Compression, out: &mut Vec<u8>) -> bool {
        is_worth_compressing(body.len(), compression) && self.deflate(body, out)
    }
}

/// Whether it is tried to compress a body of such a length.
pub(crate) fn is_worth_compressing(len: usize, compression: Compression) -> bool {
    compression == Compression::On && (COMPRESS_BYTES_MIN..=COMPRESS_BYTES_MAX).contains(&len)
}

/// What matters is that small bodies cost little. Level 1 makes JSON two fifths longer; level 3
/// makes JSON of a few kilobytes a thirtieth shorter, and takes a third longer.
const LEVEL: u32 = 2;

/// Reads what others have made shorter.
///
/// It holds some tens of kilobytes once it has been used; one for each thread is enough.
#[derive(Debug, Default)]
pub struct Inflater {
    stream: Option<Box<Decompress>>,
}

impl Inflater {
    /// Appends `input` as it was before it was compressed. What stands behind the stream's end is
    /// ignored, as by Pitaya.
    ///
    /// # Errors
    /// [`InflateError`]. Of an output that gets longer than `bytes_max`, no more than that is made.
    pub fn inflate(
        &mut self,
        input: &[u8],
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), InflateError> {
        self.begin();
        // Nobody waits, so it goes on to the end.
        while self.advance(input, bytes_max, &mut { usize::MAX }, out)? == Inflated::Part {}
        Ok(())
    }

    /// Begins with another body, of which [`Self::advance`] then makes a part at a time.
    pub fn begin(&mut self) {
        match &mut self.stream {
            Some(stream) => stream.reset(true),
            None => self.stream = Some(Box::new(Decompress::new(true))),
        }
    }

    /// Goes on with the body that [`Self::begin`] has begun with, until it is whole or `work` is
    /// done. `input` is the whole of it each time, and `out` ends with what was made so far.
    ///
    /// A byte that is made is one of work. A byte of input is [`INPUT_WORK`], as a stream may be
    /// made of blocks that make nothing and take their time nevertheless.
    ///
    /// # Errors
    /// As for [`Self::inflate`].
    pub fn advance(
        &mut self,
        input: &[u8],
        bytes_max: usize,
        work: &mut usize,
        out: &mut Vec<u8>,
    ) -> Result<Inflated, InflateError> {
        let stream = self.stream.get_or_insert_with(|| Box::new(Decompress::new(true)));
        while *work > 0 {
            let (read, made) = (stream.total_in() as usize, stream.total_out() as usize);
            let start = out.len() - made;
            let unread = input.get(read..).unwrap_or_default();
            let piece = &unread[..unread.len().min((*work / INPUT_WORK).clamp(1, PIECE_BYTES))];
            // One byte above the bound shows that it is passed.
            let room = (bytes_max.saturating_add(1) - made).min(ROOM_BYTES).min(*work);
            grow(out, start + made + room, start + bytes_max.saturating_add(1));
            let status = stream.decompress(piece, &mut out[start + made..], FlushDecompress::None);
            let (read_now, made_now) = (stream.total_in() as usize, stream.total_out() as usize);
            out.truncate(start + made_now);
            *work = work.saturating_sub(made_now - made + INPUT_WORK * (read_now - read));
            match status {
                Err(_) => return Err(InflateError::Malformed),
                Ok(_) if made_now > bytes_max => return Err(InflateError::TooLong),
                Ok(Status::StreamEnd) => return Ok(Inflated::Whole),
                // There was room, so it is the input that has no more to give.
                Ok(_) if (read_now, made_now) == (read, made) => {
                    return Err(InflateError::Truncated);
                }
                Ok(_) => {}
            }
        }
        Ok(Inflated::Part)
    }
}

/// How far a body is inflated.
#[allow(clippy::exhaustive_enums, reason = "there is no third answer; callers match both")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inflated {
    /// All of it.
    Whole,
    /// There is more to do.
    Part,
}

/// The work of reading a byte of input, in bytes made: what takes longest for its length are blocks
/// that only bring the tables of their codes, which take 40 ns for a byte, and a byte that is made
/// takes 5 ns where little is saved.
pub const INPUT_WORK: usize = 8;
/// What is read at a time.
const PIECE_BYTES: usize = 4096;
/// What is made at a time.
const ROOM_BYTES: usize = 16 * 1024;

/// Makes a buffer so long, with twice the room each time it has none, up to `len_max`.
fn grow(out: &mut Vec<u8>, len: usize, len_max: usize) {
    if len > out.capacity() {
        let room = out.capacity().saturating_mul(2).min(len_max).max(len);
        out.reserve_exact(room - out.len());
    }
    out.resize(len, 0);
}

/// Why a body could not be inflated; the peer is at fault.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InflateError {
    /// It is no zlib stream, or its sum is wrong.
    Malformed,
    /// The stream does not end.
    Truncated,
    /// What comes out is longer than allowed.
    TooLong,
}

impl fmt::Display for InflateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the body is not compressed as zlib does it",
            Self::Truncated => "the compressed body is cut off",
            Self::TooLong => "the body is too long when it is inflated",
        })
    }
}

impl std::error::Error for InflateError {}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 1 << 20;

    fn deflated(input: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(Deflater::default().deflate(input, &mut out));
        assert!(out.len() < input.len());
        out
    }

    fn inflate(input: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateError> {
        let mut out = b"before".to_vec();
        Inflater::default().inflate(input, bytes_max, &mut out)?;
        Ok(out.strip_prefix(b"before").unwrap().to_vec())
    }

    #[test]
    fn bodies_survive_the_round_trip_one_after_another() {
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        // The last is longer than the window, which has 32 KiB.
        for len in [20, 100, 5000, if cfg!(miri) { 40_000 } else { 300_000 }] {
            let body: Vec<u8> = (0..len).map(|at| (at % 7) as u8 + b'a').collect();
            let (mut short, mut back) = (vec![9], vec![8]);
            assert!(deflater.deflate(&body, &mut short));
            assert_eq!(short[..2], [9, 0x78], "what clients know zlib by");
            inflater.inflate(&short[1..], BYTES_MAX, &mut back).unwrap();
            assert_eq!((back[0], &back[1..]), (8, &body[..]));
        }
    }

    #[test]
    fn what_gets_no_shorter_is_left_as_it_is() {
        let mut deflater = Deflater::default();
        let random: Vec<u8> = (1..2000_u64)
            .map(|at| (at.pow(3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50) as u8)
            .collect();
        for body in [&b""[..], b"a", b"{\"a\":1}", &random] {
            let mut out = b"before".to_vec();
            assert!(!deflater.deflate(body, &mut out));
            assert_eq!(out, b"before");
        }
        assert!(deflater.deflate(&[0; 100], &mut Vec::new()), "and it works on");
    }

    #[test]
    fn a_bomb_is_refused_before_it_takes_memory() {
        let (len, bytes_max) = if cfg!(miri) { (40_000, 2_000) } else { (16 << 20, 100_000) };
        let bomb = deflated(&vec![0; len]);
        assert!(bomb.len() < bytes_max);
        let mut out = Vec::new();
        let outcome = Inflater::default().inflate(&bomb, bytes_max, &mut out);
        assert_eq!(outcome, Err(InflateError::TooLong));
        assert!(out.capacity() <= bytes_max + 1, "{}", out.capacity());
    }

    /// A stream of blocks that make nothing takes long for its length, so that its length counts.
    #[test]
    fn what_is_made_in_parts_is_the_same_and_no_part_takes_more_than_its_work() {
        let body: Vec<u8> = (0..20_000_u32).map(|at| ((at * at) >> 7) as u8 % 13).collect();
        let good = deflated(&body);
        // Stored blocks of no bytes, and the end.
        let empty = [&[0x78, 0x9c][..], &[0, 0, 0, 0xff, 0xff].repeat(2_000)].concat();
        let empty = [&empty[..], &[3, 0, 0, 0, 0, 1]].concat();
        for (short, expected) in [(good, body), (empty, Vec::new())] {
            let mut inflater = Inflater::default();
            for work in [1, 100, 5_000, 1 << 20] {
                let (mut out, mut parts) = (b"before".to_vec(), 0);
                inflater.begin();
                loop {
                    let (mut left, made) = (work, out.len());
                    let inflated = inflater.advance(&short, BYTES_MAX, &mut left, &mut out);
                    assert!(out.len() - made <= work);
                    parts += 1;
                    if inflated.unwrap() == Inflated::Whole {
                        break;
                    }
                    assert_eq!(left, 0);
                }
                assert_eq!(out.strip_prefix(b"before"), Some(&expected[..]));
                // A step may take all of the work for its input, and again for its output.
                let all = expected.len() + INPUT_WORK * short.len();
                assert!(parts >= all / (2 * work + INPUT_WORK), "{parts} of {work}");
            }
        }
    }

    #[test]
    fn the_bound_is_exact() {
        let body = vec![b'x'; 5000];
        let short = deflated(&body);
        assert_eq!(inflate(&short, 5000), Ok(body));
        assert_eq!(inflate(&short, 4999), Err(InflateError::TooLong));
        assert_eq!(inflate(&short, 0), Err(InflateError::TooLong));
        let empty = [0x78, 0x9c, 0x03, 0, 0, 0, 0, 1];
        assert_eq!(inflate(&empty, 0), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_stream_is_an_error() {
        let body: Vec<u8> = (0..3000_u32).map(|at| (at % 251) as u8).collect();
        let good = deflated(&body);
        for cut in crate::testing::cases(97, 0..good.len()) {
            assert_eq!(inflate(&good[..cut], BYTES_MAX), Err(InflateError::Truncated), "{cut}");
        }
        let mut sum = good.clone();
        *sum.last_mut().unwrap() ^= 1;
        assert_eq!(inflate(&sum, BYTES_MAX), Err(InflateError::Malformed));
        assert_eq!(inflate(b"{\"a\":1}", BYTES_MAX), Err(InflateError::Malformed));
        // gzip's head.
        assert_eq!(
            inflate(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0], BYTES_MAX),
            Err(InflateError::Malformed)
        );
        assert_eq!(inflate(&[&good[..], b"behind"].concat(), BYTES_MAX), Ok(body));
    }
}

//! Bodies in zlib's format (RFC 1950), with bounds on their inflated size.

use std::fmt;

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};

use super::compression::{COMPRESS_BYTES_MAX, COMPRESS_BYTES_MIN, Compression};

/// A compressor of bodies.
///
/// It holds a few hundred kilobytes once it has been used; one per thread is enough.
///
/// ```
/// use shaddock::wire::pitaya::{Compression, Deflater};
///
/// let (mut deflater, mut out) = (Deflater::default(), Vec::new());
/// assert!(!deflater.deflate(b"hi", &mut out)); // It would be longer.
/// assert!(deflater.deflate(&[b'a'; 100], &mut out));
/// out.clear();
/// assert!(!deflater.compress(&[b'a'; 100], Compression::On, &mut out)); // Not worth the time.
/// assert!(deflater.compress(&[b'a'; 1000], Compression::On, &mut out));
/// ```
#[derive(Debug, Default)]
pub struct Deflater {
    stream: Option<Box<Compress>>,
}

impl Deflater {
    /// Appends `input` compressed. False, with `out` left as it was, if that would not be shorter.
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
        // A stream that does not end within this space is no shorter.
        out.resize(start + input.len().saturating_sub(1), 0);
        let status = stream.compress(input, &mut out[start..], FlushCompress::Finish);
        let is_shorter = matches!(status, Ok(Status::StreamEnd));
        let len = if is_shorter { stream.total_out() as usize } else { 0 };
        out.truncate(start + len);
        is_shorter
    }

    /// The same for a message's body, if compression is on and the body has [`COMPRESS_BYTES_MIN`]
    /// to [`COMPRESS_BYTES_MAX`] bytes.
    pub fn compress(&mut self, body: &[u8], compression: Compression, out: &mut Vec<u8>) -> bool {
        is_worth_compressing(body.len(), compression) && self.deflate(body, out)
    }
}

/// True if compression is tried on a body of this length.
pub(crate) fn is_worth_compressing(len: usize, compression: Compression) -> bool {
    compression == Compression::On && (COMPRESS_BYTES_MIN..=COMPRESS_BYTES_MAX).contains(&len)
}

/// The compression level, chosen so that small bodies cost little. Level 1 makes JSON two fifths
/// longer; level 3 makes JSON of a few kilobytes a thirtieth shorter, and takes a third longer.
const LEVEL: u32 = 2;

/// A decompressor of bodies.
///
/// It holds some tens of kilobytes once it has been used; one per thread is enough.
///
/// ```
/// use shaddock::wire::pitaya::{Deflater, Inflated, Inflater};
///
/// let (mut small, mut inflater) = (Vec::new(), Inflater::default());
/// assert!(Deflater::default().deflate(&[b'a'; 100_000], &mut small));
///
/// let mut whole = Vec::new();
/// inflater.inflate(&small, 1 << 20, &mut whole)?;
/// assert_eq!(whole, [b'a'; 100_000]);
///
/// // A part at a time, with others served in between.
/// let mut parts = Vec::new();
/// inflater.begin();
/// while inflater.advance(&small, 1 << 20, &mut 10_000, &mut parts)? == Inflated::Part {}
/// assert_eq!(parts, whole);
/// # Ok::<(), shaddock::wire::pitaya::InflateError>(())
/// ```
#[derive(Debug, Default)]
pub struct Inflater {
    stream: Option<Box<Decompress>>,
}

impl Inflater {
    /// Appends `input` decompressed. Bytes behind the stream's end are ignored, as by Pitaya.
    ///
    /// # Errors
    /// [`InflateError`]. An output longer than `bytes_max` is not produced beyond that length.
    pub fn inflate(
        &mut self,
        input: &[u8],
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), InflateError> {
        self.begin();
        // Nobody else waits, so it continues to the end.
        while self.advance(input, bytes_max, &mut { usize::MAX }, out)? == Inflated::Part {}
        Ok(())
    }

    /// Begins another body, of which each [`Self::advance`] produces a part.
    pub fn begin(&mut self) {
        match &mut self.stream {
            Some(stream) => stream.reset(true),
            None => self.stream = Some(Box::new(Decompress::new(true))),
        }
    }

    /// Continues the body that [`Self::begin`] has begun, until it is complete or `work` is used
    /// up. Each call passes the whole `input`, and an `out` that ends with the output so far.
    ///
    /// Each byte of output is one unit of work. Each byte of input is [`INPUT_WORK`], as a stream
    /// may consist of blocks that produce nothing and take time nevertheless.
    ///
    /// # Errors
    /// The errors of [`Self::inflate`].
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
            let piece = &unread[..unread.len().min((*work / INPUT_WORK).clamp(1, INPUT_BYTES))];
            // One byte above the bound shows that it is exceeded.
            let room = (bytes_max.saturating_add(1) - made).min(OUTPUT_BYTES).min(*work);
            grow(out, start + made + room, start + bytes_max.saturating_add(1));
            let status = stream.decompress(piece, &mut out[start + made..], FlushDecompress::None);
            let (read_now, made_now) = (stream.total_in() as usize, stream.total_out() as usize);
            out.truncate(start + made_now);
            *work = work.saturating_sub(made_now - made + INPUT_WORK * (read_now - read));
            match status {
                Err(_) => return Err(InflateError::Malformed),
                Ok(_) if made_now > bytes_max => return Err(InflateError::TooLong),
                Ok(Status::StreamEnd) => return Ok(Inflated::Whole),
                // There was room for output, so the input is used up.
                Ok(_) if (read_now, made_now) == (read, made) => {
                    return Err(InflateError::Truncated);
                }
                Ok(_) => {}
            }
        }
        Ok(Inflated::Part)
    }
}

/// The progress of a body's inflation.
#[allow(clippy::exhaustive_enums, reason = "there is no third answer; callers match both")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inflated {
    /// The body is complete.
    Whole,
    /// More work is left.
    Part,
}

/// The work of one byte of input, in bytes of output. The slowest input per byte are blocks that
/// hold only code tables, at 40 ns; a byte of output takes 5 ns where compression gains little.
pub const INPUT_WORK: usize = 8;
/// The bytes that are read at a time.
const INPUT_BYTES: usize = 4096;
/// The bytes that are produced at a time.
const OUTPUT_BYTES: usize = 16 * 1024;

/// Extends a buffer to `len`, doubling its capacity as needed, up to `len_max`.
fn grow(out: &mut Vec<u8>, len: usize, len_max: usize) {
    if len > out.capacity() {
        let room = out.capacity().saturating_mul(2).min(len_max).max(len);
        out.reserve_exact(room - out.len());
    }
    out.resize(len, 0);
}

/// The reasons why a body can't be inflated; the peer is at fault.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InflateError {
    /// The body is not a zlib stream, or its checksum is wrong.
    Malformed,
    /// The stream has no end.
    Truncated,
    /// The output is longer than allowed.
    TooLong,
}

impl fmt::Display for InflateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the body is not a zlib stream",
            Self::Truncated => "the compressed body is cut off",
            Self::TooLong => "the inflated body is too long",
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
        // The last is longer than the window of 32 KiB.
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

    /// Blocks that produce nothing take long for their length, so their input counts as work.
    #[test]
    fn what_is_made_in_parts_is_the_same_and_no_part_takes_more_than_its_work() {
        let body: Vec<u8> = (0..20_000_u32).map(|at| ((at * at) >> 7) as u8 % 13).collect();
        let good = deflated(&body);
        // Stored blocks without bytes, and the end.
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
                // A step may use all of the work on its input, and again on its output.
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
        for cut in crate::test_cases::cases(97, 0..good.len()) {
            assert_eq!(inflate(&good[..cut], BYTES_MAX), Err(InflateError::Truncated), "{cut}");
        }
        let mut sum = good.clone();
        *sum.last_mut().unwrap() ^= 1;
        assert_eq!(inflate(&sum, BYTES_MAX), Err(InflateError::Malformed));
        assert_eq!(inflate(b"{\"a\":1}", BYTES_MAX), Err(InflateError::Malformed));
        // The header of gzip.
        assert_eq!(
            inflate(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0], BYTES_MAX),
            Err(InflateError::Malformed)
        );
        assert_eq!(inflate(&[&good[..], b"behind"].concat(), BYTES_MAX), Ok(body));
    }
}

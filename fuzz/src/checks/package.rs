//! A stream of packages: the same packages and the same end, whatever the cuts.

use shaddock::wire::package::{self, HEADER_BYTES, Package, PackageError, PackageType, Status};

/// The stream decodes the same whole, in reads of any size, and cut anywhere. Each package encodes
/// to its original bytes.
pub fn check(input: &[u8]) {
    for body_bytes_max in [BODY_BYTES_MAX, package::BODY_BYTES_MAX] {
        let whole = read(input, input.len(), body_bytes_max);
        for step in [1, 3, HEADER_BYTES + 1] {
            assert_eq!(read(input, step, body_bytes_max), whole, "in reads of {step} bytes");
        }
        check_first(input, body_bytes_max);
    }
}

/// Every prefix of the first package asks for more, and for no more than the package takes.
fn check_first(input: &[u8], body_bytes_max: usize) {
    let whole = package::decode(input, body_bytes_max);
    let len = match whole {
        Ok(Status::Complete { consumed, .. }) => consumed,
        Ok(Status::Partial { needed }) => needed,
        Err(_) => HEADER_BYTES,
    };
    for cut in super::cuts(len.min(input.len())) {
        match package::decode(&input[..cut], body_bytes_max) {
            Ok(Status::Partial { needed }) => assert!(cut < needed && needed <= len),
            other => panic!("{other:?} from {cut} of {len} bytes"),
        }
    }
}

/// The error that ends a stream, and the number of bytes left.
type End = (Option<PackageError>, usize);

/// Reads packages as a session does, `step` bytes at a time.
fn read(input: &[u8], step: usize, body_bytes_max: usize) -> (Vec<(PackageType, Vec<u8>)>, End) {
    let mut packages = Vec::new();
    let (mut start, mut end) = (0, 0);
    loop {
        match package::decode(&input[start..end], body_bytes_max) {
            Ok(Status::Complete { value: Package { kind, body, .. }, consumed }) => {
                let mut encoded = Vec::new();
                package::encode(kind, body, &mut encoded).expect("a decoded body fits");
                assert_eq!(encoded, input[start..start + consumed]);
                packages.push((kind, body.to_vec()));
                start += consumed;
            }
            Ok(Status::Partial { needed }) => {
                assert!(needed > end - start);
                if end == input.len() {
                    return (packages, (None, end - start));
                }
                end = (end + step.max(1)).min(input.len());
            }
            Err(error) => {
                assert!(end - start >= HEADER_BYTES, "{error} before the header was there");
                return (packages, (Some(error), input.len() - start));
            }
        }
    }
}

/// The longest body, short enough that a fuzzer's inputs reach it.
const BODY_BYTES_MAX: usize = 300;

//! WebSocket frames of clients.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use shaddock::wire::websocket::{self, HeaderStatus};

use crate::traffic::{BYTES_MAX, frame};

const MASK: [u8; 4] = [0x1f, 0xe2, 0x33, 0x94];

pub(crate) fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("websocket header and unmask");
    for (name, len) in [("64 B", 64), ("1 KiB", 1024), ("16 KiB", 16 * 1024)] {
        let mut input = frame(MASK, &vec![b'x'; len]);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(name, |bencher| {
            // Each pass undoes the one before it, so no copy is measured.
            bencher.iter(|| {
                let header = websocket::decode_header(black_box(&input), BYTES_MAX);
                let Ok(HeaderStatus::Complete(header)) = header else { panic!("it is whole") };
                let payload = &mut input[header.header_len..][..header.payload_len];
                websocket::unmask(payload, header.mask, 0);
                assert_eq!(black_box(payload).len(), len);
            });
        });
    }
}

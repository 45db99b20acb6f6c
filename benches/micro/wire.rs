//! Packages and messages.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use shaddock::wire::message::{self, Message, MessageType, RouteRef};
use shaddock::wire::package::{self, HEADER_BYTES, PackageType, Status};

use crate::traffic::{BODY, BYTES_MAX, FIRST_ID, ROUTE, body_1k, request};

const CODE: RouteRef<'_> = RouteRef::Code(7);
const TEXT: RouteRef<'_> = RouteRef::Text(ROUTE.as_bytes());
const PUSH_ROUTE: RouteRef<'_> = RouteRef::Text(b"onChat");
const PACKAGES: usize = 16;

pub(crate) fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    let body_1k = body_1k();
    for (name, route, body) in [
        ("64 B, text route", TEXT, &BODY[..]),
        ("64 B, code route", CODE, BODY),
        ("1 KiB, text route", TEXT, &body_1k),
    ] {
        let input = request(FIRST_ID, route, body);
        group.throughput(Throughput::Bytes(input.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let message = decode_one(black_box(&input)).0;
                assert_eq!(message.body.len(), body.len());
                message
            });
        });
    }
    let input: Vec<u8> =
        (0..PACKAGES as u32).flat_map(|id| request(FIRST_ID + id, TEXT, BODY)).collect();
    group.throughput(Throughput::Elements(PACKAGES as u64));
    group.bench_function("16 packages of 64 B, text route", |bencher| {
        bencher.iter(|| {
            let mut rest = black_box(&input[..]);
            let mut ids = 0;
            for _ in 0..PACKAGES {
                let (message, consumed) = decode_one(rest);
                ids += message.id;
                rest = &rest[consumed..];
            }
            assert!(rest.is_empty());
            ids
        });
    });
}

#[inline]
fn decode_one(input: &[u8]) -> (Message<'_>, usize) {
    match package::decode(input, BYTES_MAX) {
        Ok(Status::Complete { value, consumed }) => {
            (message::decode(value.body).expect("it is well formed"), consumed)
        }
        _ => panic!("the package is whole"),
    }
}

pub(crate) fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    let mut out = Vec::with_capacity(256);
    let len = message::response_head_len(FIRST_ID) + BODY.len();
    group.throughput(Throughput::Bytes((HEADER_BYTES + len) as u64));
    group.bench_function("response of 64 B", |bencher| {
        bencher.iter(|| {
            out.clear();
            out.extend_from_slice(&package::Header::encode(PackageType::Data, len));
            message::encode_response_head(black_box(FIRST_ID), &mut out);
            out.extend_from_slice(black_box(BODY));
            assert_eq!(out.len(), HEADER_BYTES + len);
        });
    });
    let mut message = Vec::with_capacity(256);
    let push = Message {
        id: 0,
        kind: MessageType::Push,
        route: Some(PUSH_ROUTE),
        body: BODY,
        gzip: false,
    };
    let len = message::push_head_len(&PUSH_ROUTE) + BODY.len();
    group.throughput(Throughput::Bytes((HEADER_BYTES + len) as u64));
    group.bench_function("push of 64 B", |bencher| {
        bencher.iter(|| {
            message.clear();
            out.clear();
            message::encode(black_box(&push), &mut message).expect("the route is short");
            package::encode(PackageType::Data, &message, &mut out).expect("the body is short");
            assert_eq!(out.len(), HEADER_BYTES + len);
        });
    });
}

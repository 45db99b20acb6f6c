//! Bodies with a schema.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use shaddock::wire::protobuf::Protos;

const SCHEMA: &str = r#"{"onMove": {
    "message Point": {"required int32 x": 1, "required int32 y": 2},
    "required uInt32 entityId": 1, "optional string name": 2, "required double speed": 3,
    "repeated Point path": 4, "repeated uInt32 buffs": 5}}"#;
const JSON: &[u8] = concat!(
    r#"{"entityId":48213,"name":"ann","speed":1.5,"#,
    r#""path":[{"x":100,"y":-20},{"x":110,"y":-25},{"x":131,"y":4}],"buffs":[3,17]}"#,
)
.as_bytes();

pub(crate) fn transcode(criterion: &mut Criterion) {
    let protos = Protos::parse_text(SCHEMA).expect("the schema is good");
    let schema = protos.schema("onMove").expect("the route was declared");
    let mut body = Vec::new();
    schema.encode_json_text(JSON, &mut body).expect("the body fits");
    let body_len = body.len();
    let (mut json, mut encoded) = (Vec::with_capacity(512), Vec::with_capacity(512));
    schema.decode_to_json(&body, &mut json).expect("it was encoded");
    assert_eq!(json, JSON);
    let mut group = criterion.benchmark_group("protobuf");
    group.throughput(Throughput::Bytes(body_len as u64));
    group.bench_function("decode to JSON", |bencher| {
        bencher.iter(|| {
            json.clear();
            schema.decode_to_json(black_box(&body), &mut json).expect("it was encoded");
            assert_eq!(json.len(), JSON.len());
        });
    });
    group.throughput(Throughput::Bytes(JSON.len() as u64));
    group.bench_function("encode JSON", |bencher| {
        bencher.iter(|| {
            encoded.clear();
            schema.encode_json_text(black_box(JSON), &mut encoded).expect("the body fits");
            assert_eq!(encoded.len(), body_len);
        });
    });
}

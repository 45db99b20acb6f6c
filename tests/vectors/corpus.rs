//! Replays the fuzz corpus: each file under `fuzz/corpus/` goes through the check of its target, so
//! that what a fuzzer once found stays fixed without a fuzzer. See `docs/fuzzing.md`.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use crate::checks;

#[test]
fn package() {
    replay("package", checks::package::check);
}

#[test]
fn message() {
    replay("message", checks::message::check);
}

#[test]
fn handshake() {
    replay("handshake", checks::handshake::check);
}

#[test]
fn pitaya() {
    replay("pitaya", checks::pitaya::check);
}

#[test]
fn protobuf() {
    replay("protobuf", checks::protobuf::check);
}

#[test]
fn proxy() {
    replay("proxy", checks::proxy::check);
}

#[test]
fn websocket() {
    replay("websocket", checks::websocket::check);
}

#[test]
fn http() {
    replay("http", checks::http::check);
}

#[test]
fn route() {
    replay("route", checks::route::check);
}

#[test]
fn session() {
    replay("session", checks::session::check);
}

#[test]
fn lanes() {
    replay("lanes", checks::lanes::check);
}

#[test]
fn rpc() {
    replay("rpc", checks::rpc::check);
}

#[test]
fn client() {
    replay("client", checks::client::check);
}

#[test]
#[cfg(feature = "pitaya")]
fn cluster() {
    replay("cluster", checks::cluster::check);
}

#[test]
#[cfg(feature = "pitaya")]
fn nats() {
    replay("nats", checks::nats::check);
}

/// Every target of the fuzz crate has a folder of seeds, and a test here.
#[test]
fn every_target_is_replayed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let this = fs::read_to_string(root.join(file!())).expect("the test can read itself");
    for target in names(&root.join("fuzz/fuzz_targets")) {
        let target = target.trim_end_matches(".rs");
        assert!(root.join("fuzz/corpus").join(target).is_dir(), "fuzz/corpus/{target} is missing");
        assert!(this.contains(&format!("replay(\"{target}\"")), "no test replays {target}");
    }
}

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let names = names(&folder);
    assert!(!names.is_empty(), "no seeds in {}", folder.display());
    let mut failed = Vec::new();
    for name in names {
        let input = fs::read(folder.join(&name)).expect("a seed can be read");
        // The panic itself is printed; this goes on to list every seed that fails.
        if catch_unwind(AssertUnwindSafe(|| check(&input))).is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "fuzz/corpus/{target}: {failed:?}");
}

/// The files of a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.expect("the folder can be read").file_name().into_string().expect("a plain name")
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

//! The packages that a feature brings.

use std::path::Path;
use std::process::Command;

/// The packages of the crate with these features and no others.
fn packages(features: &str) -> Vec<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges", "normal,build", "--prefix", "none"])
        .args(["--no-default-features", "--features", features])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .expect("cargo runs");
    let [out, err] = [&tree.stdout, &tree.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(tree.status.success(), "{err}");
    let names = out.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

#[test]
fn the_client_and_the_protocol_need_neither_runtime_nor_ring() {
    let engine = packages("engine");
    for name in ["glommio", "io-uring"] {
        assert!(engine.iter().any(|package| package == name), "{name} has another name now");
    }
    for features in ["", "client", "client,tls", "crypto"] {
        let packages = packages(features);
        assert!(packages.iter().any(|package| package == "serde_json"), "{packages:?}");
        for name in ["glommio", "io-uring", "rustix", "tokio"] {
            assert!(!packages.iter().any(|package| package == name), "{features}: {name}");
        }
    }
}

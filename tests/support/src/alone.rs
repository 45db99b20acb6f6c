//! Processes of their own for tests that look at what belongs to the whole process.

use std::process::Command;

/// Tells a process which test it was started for.
const TEST: &str = "SHADDOCK_TEST_ALONE";

/// Tells whether this process is there for the test of that full name alone. If it is not, the test
/// is run in one that is, this program started again, and the caller has nothing left to do.
pub fn is_alone(name: &str) -> bool {
    if std::env::var(TEST).is_ok_and(|started_for| started_for == name) {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(TEST, name)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    println!("{text}");
    assert!(output.status.success() && text.contains("1 passed"), "{name} alone has failed");
    false
}

/// The bytes of memory that this process has.
pub fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

//! `[heartbeat]`: how clients show that they live.

use std::time::Duration;

use shaddock::Builder;

use super::Section;
use super::kind::{DURATION, FLAG};
use super::table::Table;

struct Heartbeats {
    interval: Option<Duration>,
    timeout: Option<Duration>,
    any_package: bool,
}

pub(super) fn read(root: &mut Table<'_>, name: &'static str) -> Box<dyn Section> {
    root.table(name, |table| {
        let interval = table.read_some("interval", DURATION);
        if interval.is_some_and(|interval| interval.subsec_nanos() != 0) {
            // The handshake tells seconds, and many clients read them as an integer.
            table.refuse("interval", "whole seconds, as clients make 0 s of \"500ms\"", None);
        }
        let timeout = table.read_some("timeout", DURATION);
        let mut any_package = false;
        table.read("any_package", &mut any_package, FLAG);
        Box::new(Heartbeats { interval, timeout, any_package })
    })
}

impl Section for Heartbeats {
    fn describe(&self, mut builder: Builder) -> Builder {
        if let Some(interval) = self.interval {
            builder = builder.heartbeat(interval);
        }
        if let Some(timeout) = self.timeout {
            builder = builder.heartbeat_timeout(timeout);
        }
        if self.any_package {
            builder = builder.any_package_keeps_alive();
        }
        builder
    }
}

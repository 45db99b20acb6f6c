//! `[limits]`: the bounds of everything.

use shaddock::{Builder, Limits};

use super::Section;
use super::kind::{DURATION, bytes, count};
use super::table::Table;

pub(super) fn read(root: &mut Table<'_>, name: &'static str) -> Box<dyn Section> {
    let mut all = Limits::default();
    root.table(name, |table| read_all(table, &mut all));
    Box::new(all)
}

/// Reads fields of a structure by their names. It is taken apart whole, so that a field that is
/// added later is not forgotten here.
macro_rules! read_fields {
    ($table:expr, $type:ident, $all:expr, { $($name:ident: $kind:expr,)+ }) => {
        let $type { $($name,)+ } = $all;
        $($table.read(stringify!($name), $name, $kind);)+
    };
}

fn read_all(table: &mut Table<'_>, limits: &mut Limits) {
    read_fields!(table, Limits, limits, {
        connections_max: count(),
        connections_per_shard_max: count(),
        accepts_per_ip_per_second: count(),
        accepts_per_ip_burst: count(),
        backlog: count(),
        handshake_package_bytes_max: bytes(),
        package_bytes_max: bytes(),
        http_head_bytes_max: bytes(),
        outbox_bytes_max: bytes(),
        outbox_pushes_max: count(),
        outbox_age_max: DURATION,
        handshake_timeout: DURATION,
        idle_timeout: DURATION,
        close_linger: DURATION,
        forward_timeout: DURATION,
        forwards_in_flight_max: count(),
        lane_len: count(),
        lane_bytes_max: bytes(),
        inbox_len: count(),
        backlog_len_max: count(),
        in_flight_per_session_max: count(),
        in_flight_bytes_per_session_max: bytes(),
        shard_bytes_max: bytes(),
        bytes_per_turn_max: bytes(),
        messages_per_turn_max: count(),
        work_per_turn_max: bytes(),
        signed_bytes_max: bytes(),
        held_bytes_max: bytes(),
        messages_per_second: count(),
        messages_burst: count(),
        tasks_max: count(),
        uid_bytes_max: bytes(),
        receive_buffer_bytes: bytes(),
        receive_buffers: count(),
    });
}

impl Section for Limits {
    fn describe(&self, builder: Builder) -> Builder {
        builder.limits(self.clone())
    }
}

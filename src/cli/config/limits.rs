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

/// Taken apart whole, so that a bound that is added later is not forgotten here.
fn read_all(table: &mut Table<'_>, limits: &mut Limits) {
    let Limits {
        connections_max,
        connections_per_shard_max,
        accepts_per_ip_per_second,
        accepts_per_ip_burst,
        backlog,
        handshake_package_bytes_max,
        package_bytes_max,
        http_head_bytes_max,
        outbox_bytes_max,
        outbox_pushes_max,
        outbox_age_max,
        handshake_timeout,
        idle_timeout,
        close_linger,
        forward_timeout,
        forwards_in_flight_max,
        lane_len,
        lane_bytes_max,
        inbox_len,
        backlog_len_max,
        in_flight_per_session_max,
        in_flight_bytes_per_session_max,
        shard_bytes_max,
        bytes_per_turn_max,
        messages_per_turn_max,
        work_per_turn_max,
        signed_bytes_max,
        held_bytes_max,
        messages_per_second,
        messages_burst,
        tasks_max,
        uid_bytes_max,
        receive_buffer_bytes,
        receive_buffers,
    } = limits;
    table.read("connections_max", connections_max, count());
    table.read("connections_per_shard_max", connections_per_shard_max, count());
    table.read("accepts_per_ip_per_second", accepts_per_ip_per_second, count());
    table.read("accepts_per_ip_burst", accepts_per_ip_burst, count());
    table.read("backlog", backlog, count());
    table.read("handshake_package_bytes_max", handshake_package_bytes_max, bytes());
    table.read("package_bytes_max", package_bytes_max, bytes());
    table.read("http_head_bytes_max", http_head_bytes_max, bytes());
    table.read("outbox_bytes_max", outbox_bytes_max, bytes());
    table.read("outbox_pushes_max", outbox_pushes_max, count());
    table.read("outbox_age_max", outbox_age_max, DURATION);
    table.read("handshake_timeout", handshake_timeout, DURATION);
    table.read("idle_timeout", idle_timeout, DURATION);
    table.read("close_linger", close_linger, DURATION);
    table.read("forward_timeout", forward_timeout, DURATION);
    table.read("forwards_in_flight_max", forwards_in_flight_max, count());
    table.read("lane_len", lane_len, count());
    table.read("lane_bytes_max", lane_bytes_max, bytes());
    table.read("inbox_len", inbox_len, count());
    table.read("backlog_len_max", backlog_len_max, count());
    table.read("in_flight_per_session_max", in_flight_per_session_max, count());
    table.read("in_flight_bytes_per_session_max", in_flight_bytes_per_session_max, bytes());
    table.read("shard_bytes_max", shard_bytes_max, bytes());
    table.read("bytes_per_turn_max", bytes_per_turn_max, bytes());
    table.read("messages_per_turn_max", messages_per_turn_max, count());
    table.read("work_per_turn_max", work_per_turn_max, bytes());
    table.read("signed_bytes_max", signed_bytes_max, bytes());
    table.read("held_bytes_max", held_bytes_max, bytes());
    table.read("messages_per_second", messages_per_second, count());
    table.read("messages_burst", messages_burst, count());
    table.read("tasks_max", tasks_max, count());
    table.read("uid_bytes_max", uid_bytes_max, bytes());
    table.read("receive_buffer_bytes", receive_buffer_bytes, bytes());
    table.read("receive_buffers", receive_buffers, count());
}

impl Section for Limits {
    fn describe(&self, builder: Builder) -> Builder {
        builder.limits(self.clone())
    }
}

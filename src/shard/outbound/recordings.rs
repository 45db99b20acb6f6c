//! The recorded sessions of a shard, by their ids. They stand beside the connections, so that those
//! without are no larger.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::record::{Cut, Direction, News, Record, Recording, Redactor, SecretRequests, Tap};
use crate::route::edition::Edition;
use crate::session::SessionId;
use crate::shard::connections::Connections;
use crate::wire::message::{self, RouteRef};

/// The recorded sessions of a shard.
#[derive(Debug, Default)]
pub(super) struct Recordings {
    taps: FxHashMap<SessionId, Box<Taps>>,
    /// Recordings that wait for a session of any shard.
    pub(super) waiting: Vec<Arc<Recording>>,
    redactor: Redactor,
    /// Packages that were to be written while somebody read; mostly none.
    late: Vec<Late>,
    /// Memory for what is cut out of a piece; empty in between.
    pub(super) cuts: Vec<Cut>,
}

/// The most packages that memory is kept for between two pieces.
const CUTS_KEPT: usize = 1024;
/// Bytes of records of one recording that wait until nobody reads it; `docs/limits.md` lists it.
const LATE_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Taps {
    pub(super) recording: Arc<Recording>,
    pub(super) input: Tap,
    pub(super) output: Tap,
    secret_requests: SecretRequests,
}

/// News of a recording that wait until nobody reads it.
#[derive(Debug)]
struct Late {
    recording: Arc<Recording>,
    news: VecDeque<News>,
    bytes: usize,
}

impl Recordings {
    pub(super) fn begin_turn(&mut self) {
        self.redactor.begin_turn();
        if !self.late.is_empty() {
            self.put_late();
        }
    }

    pub(super) fn has(&self, session: SessionId) -> bool {
        self.taps.contains_key(&session)
    }

    pub(super) fn insert(&mut self, session: SessionId, taps: Taps) {
        self.taps.insert(session, Box::new(taps));
    }

    /// The sessions whose recordings are over.
    pub(super) fn over(&self, now_us: u64) -> Vec<SessionId> {
        let over = self.taps.iter().filter(|(_, taps)| taps.recording.is_over(now_us));
        over.map(|(session, _)| *session).collect()
    }

    /// Records bytes of a session; false if its recording is over.
    pub(super) fn note(
        &mut self,
        session: SessionId,
        direction: Direction,
        bytes: &[u8],
        edition: Option<&Edition>,
        at_us: u64,
    ) -> bool {
        let Some(taps) = self.taps.get_mut(&session) else { return false };
        if taps.recording.is_over(at_us) {
            return false;
        }
        let tap = match direction {
            Direction::FromClient => &mut taps.input,
            Direction::ToClient => &mut taps.output,
        };
        tap.feed(bytes, &mut self.cuts);
        self.write(session, direction, edition, at_us);
        true
    }

    /// Ends the recording of a session; false if it has none.
    pub(super) fn end(
        &mut self,
        session: SessionId,
        reason: &'static str,
        connections: &Connections,
    ) -> bool {
        let Some(taps) = self.taps.remove(&session) else { return false };
        if let Some(connection) = connections.get(session) {
            let info = connections.info(session, connection);
            self.put(&taps.recording, News::Session(Box::new(info)));
        }
        taps.recording.end(reason);
        true
    }

    /// Ends the recording of a session that is gone, with the reason of its end.
    pub(super) fn remove(&mut self, session: SessionId, connections: &Connections) {
        if self.has(session) {
            let reason = connections.last_close(session.slot());
            self.end(session, reason.unwrap_or("the session has ended"), connections);
        }
    }

    /// Writes what was cut out, without what is secret.
    pub(super) fn write(
        &mut self,
        session: SessionId,
        direction: Direction,
        edition: Option<&Edition>,
        at_us: u64,
    ) {
        let mut cuts = std::mem::take(&mut self.cuts);
        for mut cut in cuts.drain(..) {
            let Some(taps) = self.taps.get_mut(&session) else { break };
            let code = match message::decode(&cut.kept).ok().and_then(|message| message.route) {
                Some(RouteRef::Code(code)) => Some(code),
                _ => None,
            };
            let route = code.and_then(|code| edition?.text(code));
            let (requests, options) = (&mut taps.secret_requests, &taps.recording.options);
            self.redactor.redact(&mut cut, route, requests, options);
            let Cut { kind, len, kept } = cut;
            let (route, kept) = (route.map(Box::from), kept.into_boxed_slice());
            let record = Record { at_us, direction, kind, len, route, kept };
            let recording = Arc::clone(&taps.recording);
            self.put(&recording, News::Record(record));
        }
        if cuts.capacity() <= CUTS_KEPT {
            self.cuts = cuts;
        }
    }

    /// Writes at once, or behind what waits already.
    pub(super) fn put(&mut self, recording: &Arc<Recording>, news: News) {
        let late = self.late.iter_mut().find(|late| Arc::ptr_eq(&late.recording, recording));
        let Err(news) = (match late {
            Some(late) => return late.add(news),
            None => recording.try_put(news),
        }) else {
            return;
        };
        let recording = Arc::clone(recording);
        let mut late = Late { recording, news: VecDeque::new(), bytes: 0 };
        late.add(news);
        self.late.push(late);
    }

    #[cold]
    fn put_late(&mut self) {
        self.late.retain_mut(|late| {
            while let Some(news) = late.news.pop_front() {
                if let Err(news) = late.recording.try_put(news) {
                    late.news.push_front(news);
                    return true;
                }
            }
            false
        });
    }
}

impl Late {
    fn add(&mut self, news: News) {
        if let News::Record(record) = &news {
            self.bytes += record.cost();
            if self.bytes > LATE_BYTES_MAX {
                self.bytes -= record.cost();
                return self.recording.lose();
            }
        }
        self.news.push_back(news);
    }
}

impl Taps {
    pub(super) fn new(recording: Arc<Recording>, input: Tap, output: Tap) -> Self {
        Self { recording, input, output, secret_requests: SecretRequests::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{RECORDING_BYTES_MIN, RecordKind, RecordOptions, Recorder, Target};
    use crate::wire::package::PackageType;

    fn record(at_us: u64) -> News {
        let kind = RecordKind::Package(PackageType::Data);
        let kept = vec![0; 1_000].into();
        News::Record(Record {
            at_us,
            direction: Direction::ToClient,
            kind,
            len: 9,
            route: None,
            kept,
        })
    }

    #[test]
    fn a_shard_does_not_wait_for_who_reads_and_counts_what_is_lost() {
        let options = RecordOptions {
            bytes_max: 16 * RECORDING_BYTES_MIN,
            has_bodies: true,
            seconds: 9,
            secrets: Arc::default(),
        };
        let recorder = Recorder::default();
        let recording = recorder.arm(Target::Uid("amy".into()), options, None, 0).unwrap();
        let mut recordings = Recordings::default();
        recordings.put(&recording, record(0));
        // By one thread: whoever waited here would wait for ever.
        recording.while_read(|| {
            for at_us in 1..200 {
                recordings.put(&recording, record(at_us));
            }
            recordings.begin_turn();
            assert_eq!(recordings.late.len(), 1);
            assert!(recording.begin() && !recording.is_over(0));
        });
        recordings.begin_turn();
        assert!(recordings.late.is_empty());
        recordings.put(&recording, record(200));
        let snapshot = recording.snapshot(0);
        let kept = LATE_BYTES_MAX / (1_000 + 96);
        assert_eq!((snapshot.records.len(), snapshot.lost), (kept + 2, 199 - kept as u64));
        let times: Vec<_> = snapshot.records.iter().map(|record| record.at_us).collect();
        assert!(times.is_sorted() && times.ends_with(&[kept as u64, 200]));
    }

    #[test]
    fn the_documentation_lists_the_bound() {
        let row = format!("| fixed (`LATE_BYTES_MAX`) | {} KiB |", LATE_BYTES_MAX / 1024);
        assert!(include_str!("../../../docs/limits.md").contains(&row), "{row}");
    }
}

//! The messages of one run of the loop, read from where they came.
//!
//! Messages that need nothing before their filters are read straight from the buffer that they came
//! in ([`Packages`]), the others come one by one, once they are prepared ([`Prepared`]).

use std::ops::Range;
use std::rc::Rc;

use super::plan::{Plan, RecentRoutes, Target, is_same};
use crate::dispatch::context::ThreadState;
use crate::route::edition::Edition;
use crate::route::table::{RouteId, RouteTable};
use crate::shard::connections::{Connection, Transport};
use crate::wire::message::{self, MessageType, RouteRef};
use crate::wire::package::{self, HEADER_BYTES, Package, PackageType, Status};
use crate::wire::websocket::{self, HeaderStatus, Opcode};

/// Progress of `Dispatcher::handle_packages`.
#[derive(Default)]
pub(super) struct Run {
    pub(super) consumed: usize,
    /// Something else was done on the way, which may have changed the session: what follows may be
    /// for the loop again.
    pub(super) is_interrupted: bool,
    /// The message behind those that were handled, which needs something before its filters.
    pub(super) apart: Option<Range<usize>>,
}

/// A message that is ready for its filters.
pub(super) struct Ready<'a, R> {
    /// 0 for a notify.
    pub(super) id: u32,
    pub(super) is_notify: bool,
    pub(super) route: Known<'a, R>,
    pub(super) body: &'a [u8],
}

/// A route, as far as the loop has to know it.
#[derive(Clone, Copy)]
pub(super) struct Known<'a, R> {
    pub(super) id: R,
    pub(super) text: &'a str,
    pub(super) target: Target,
}

/// The messages of one run.
pub(super) trait Messages {
    /// Their answers need neither a schema nor Pitaya's dialect, so they are written in place; and
    /// those for workers go in batches.
    const ARE_PLAIN: bool;
    /// Their answers are counted by route, where that is measured.
    const COUNTS_ROUTES: bool = false;
    /// The id of a route; optional where a route may be in no table.
    type Route: Copy + Into<Option<RouteId>>;

    /// True if the messages of a connection may be handled.
    fn begin(&mut self, connection: &Connection) -> bool;

    /// The next one.
    fn next<'a, 'r: 'a>(
        &'a mut self,
        run: &mut Run,
        routes: &mut Routes<'r, '_>,
        last: &mut Option<Known<'r, Self::Route>>,
    ) -> Option<Ready<'a, Self::Route>>;
}

/// Messages in DATA packages, up to the first that needs something before its filters.
pub(super) struct Packages<'i> {
    pub(super) input: &'i mut [u8],
    pub(super) transport: Transport,
    pub(super) body_bytes_max: usize,
}

impl Messages for Packages<'_> {
    const ARE_PLAIN: bool = true;
    type Route = RouteId;

    #[inline(always)]
    fn begin(&mut self, connection: &Connection) -> bool {
        self.transport = connection.transport;
        connection.message.is_none()
    }

    #[inline(always)]
    fn next<'a, 'r: 'a>(
        &'a mut self,
        run: &mut Run,
        routes: &mut Routes<'r, '_>,
        last: &mut Option<Known<'r, RouteId>>,
    ) -> Option<Ready<'a, RouteId>> {
        let rest = &mut self.input[run.consumed..];
        let (data, end) = next_data(self.transport, rest, self.body_bytes_max)?;
        run.consumed += end;
        let ready = routes.read(data, last);
        if ready.is_none() {
            // A package ends with its body.
            run.apart = Some(run.consumed - data.len()..run.consumed);
        }
        ready
    }
}

/// The same, each noted by itself: for a while behind a turn that has taken long, and where answers
/// are counted by route.
pub(super) struct NotedPackages<'i> {
    pub(super) packages: Packages<'i>,
    pub(super) thread: Rc<ThreadState>,
}

impl Messages for NotedPackages<'_> {
    const ARE_PLAIN: bool = true;
    const COUNTS_ROUTES: bool = true;
    type Route = RouteId;

    fn begin(&mut self, connection: &Connection) -> bool {
        self.packages.begin(connection)
    }

    fn next<'a, 'r: 'a>(
        &'a mut self,
        run: &mut Run,
        routes: &mut Routes<'r, '_>,
        last: &mut Option<Known<'r, RouteId>>,
    ) -> Option<Ready<'a, RouteId>> {
        let ready = self.packages.next(run, routes, last)?;
        self.thread.last_call.note_route(ready.route.id);
        Some(ready)
    }
}

/// One message for which all is done that had to be done before its filters.
pub(super) struct Prepared<'p>(pub(super) Option<Ready<'p, Option<RouteId>>>);

impl Messages for Prepared<'_> {
    const ARE_PLAIN: bool = false;
    type Route = Option<RouteId>;

    fn begin(&mut self, _: &Connection) -> bool {
        true
    }

    fn next<'a, 'r: 'a>(
        &'a mut self,
        _: &mut Run,
        _: &mut Routes<'r, '_>,
        _: &mut Option<Known<'r, Option<RouteId>>>,
    ) -> Option<Ready<'a, Option<RouteId>>> {
        self.0.take()
    }
}

/// The routes as one session knows them.
pub(super) struct Routes<'r, 's> {
    pub(super) table: &'r RouteTable,
    pub(super) edition: Option<&'s Edition>,
    pub(super) plans: &'s [Plan],
    pub(super) recent: &'s mut RecentRoutes,
}

impl<'r> Routes<'r, '_> {
    /// The message in a DATA package, if it is one that a client may send, and its route one whose
    /// messages need nothing before their filters. What comes in one piece is mostly of one route.
    #[inline(always)]
    fn read<'a>(
        &mut self,
        data: &'a [u8],
        last: &mut Option<Known<'r, RouteId>>,
    ) -> Option<Ready<'a, RouteId>>
    where
        'r: 'a,
    {
        let message = message::decode(data).ok()?;
        let (id, is_notify) = match message.kind {
            MessageType::Request => (message.id, false),
            MessageType::Notify => (0, true),
            _ => return None,
        };
        let body = message.body;
        let id_of_route = match message.route? {
            RouteRef::Text(text) => match *last {
                Some(route) if is_same(route.text.as_bytes(), text) => {
                    return Some(Ready { id, is_notify, route, body });
                }
                _ => self.recent.find(self.table, text)?,
            },
            RouteRef::Code(code) => self.edition?.find(code)?,
        };
        let Plan { target, is_plain } = self.plans[id_of_route.index()];
        if !is_plain {
            return None;
        }
        let route = Known { id: id_of_route, text: &self.table.entry(id_of_route).text, target };
        *last = Some(route);
        Some(Ready { id, is_notify, route, body })
    }
}

/// The body of the DATA package that `input` starts with, and where what follows it starts; `None`
/// for anything else, and for more than one package in a WebSocket frame.
#[inline(always)]
fn next_data(
    transport: Transport,
    input: &mut [u8],
    body_bytes_max: usize,
) -> Option<(&[u8], usize)> {
    match transport {
        Transport::Tcp => first_data(input, body_bytes_max),
        Transport::WebSocket => {
            let (start, end) = unmask_first(input, body_bytes_max)?;
            let (body, package_len) = first_data(&input[start..end], body_bytes_max)?;
            (start + package_len == end).then_some((body, end))
        }
    }
}

/// The body of the DATA package that `input` starts with, and how long the package is.
#[inline(always)]
fn first_data(input: &[u8], body_bytes_max: usize) -> Option<(&[u8], usize)> {
    match package::decode(input, body_bytes_max) {
        Ok(Status::Complete { value: Package { kind: PackageType::Data, body }, consumed }) => {
            Some((body, consumed))
        }
        _ => None,
    }
}

/// The range of the payload of the frame at the start of `input`, now without its mask.
#[inline]
fn unmask_first(input: &mut [u8], body_bytes_max: usize) -> Option<(usize, usize)> {
    let payload_max = 2 * (HEADER_BYTES + body_bytes_max);
    let Ok(HeaderStatus::Complete(header)) = websocket::decode_header(input, payload_max) else {
        return None;
    };
    let end = header.header_len + header.payload_len;
    if !header.fin || header.opcode != Opcode::Binary || end > input.len() {
        return None;
    }
    let (head, payload) = input[..end].split_at_mut(header.header_len);
    websocket::unmask(payload, header.mask, 0);
    if let Some(mask) = head.last_chunk_mut() {
        *mask = [0; 4];
    }
    Some((header.header_len, end))
}

//! The time that requests take, by route: by each of the first routes that an engine knows from its
//! start, and by all others together. A route that only a client names gets no place of its own.

use std::sync::Arc;

use super::{Latency, LatencyCounters};

/// Routes that are measured by themselves; those behind them count under [`OTHER`].
pub(crate) const MEASURED_ROUTES_MAX: usize = 256;
/// The name of all routes that have no place of their own. It is no route: that has three parts.
const OTHER: &str = "other";

/// The routes that are measured, each with its place.
#[derive(Debug)]
pub(crate) struct MeasuredRoutes {
    names: Vec<Arc<str>>,
    /// The place of each known route, by its index. INVARIANT: at most `names.len()`, the place of
    /// all others.
    places: Box<[u16]>,
}

/// The latency of one shard's requests, by the place of their route.
#[derive(Debug)]
pub(crate) struct RouteLatencies {
    routes: Arc<MeasuredRoutes>,
    by_place: Box<[LatencyCounters]>,
}

/// The answers of one turn, by the place of their route.
#[derive(Debug)]
pub(crate) struct RouteAnswers {
    routes: Arc<MeasuredRoutes>,
    by_place: Box<[u32]>,
    /// The places that have some.
    places: Vec<u16>,
}

impl MeasuredRoutes {
    /// Those of the routes that an engine knows, in their order, that requests may have.
    pub(crate) fn new<'a>(
        known: impl IntoIterator<Item = &'a Arc<str>>,
        is_of_requests: impl Fn(&str) -> bool,
    ) -> Self {
        let mut names = Vec::new();
        let place = |route: &'a Arc<str>| {
            let is_measured = names.len() < MEASURED_ROUTES_MAX && is_of_requests(route);
            let place = is_measured.then_some(names.len() as u16);
            names.extend(place.map(|_| Arc::clone(route)));
            place
        };
        let places: Vec<_> = known.into_iter().map(place).collect();
        let other = names.len() as u16;
        Self { places: places.into_iter().map(|place| place.unwrap_or(other)).collect(), names }
    }

    /// The number of places.
    fn len(&self) -> usize {
        self.names.len() + 1
    }

    /// The place of a route by its index; none is that of one which is not known.
    #[inline]
    fn place(&self, route: Option<usize>) -> usize {
        let known = route.and_then(|route| self.places.get(route));
        known.map_or(self.names.len(), |place| usize::from(*place))
    }

    /// The names by their places.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name).chain([OTHER])
    }
}

impl RouteLatencies {
    pub(crate) fn new(routes: &Arc<MeasuredRoutes>) -> Self {
        let by_place = (0..routes.len()).map(|_| LatencyCounters::default()).collect();
        Self { routes: Arc::clone(routes), by_place }
    }

    /// Counts an answer to a request of a route, which is known by its index or not known.
    #[inline]
    pub(crate) fn record(&self, route: Option<usize>, micros: u64) {
        self.by_place[self.routes.place(route)].record(micros, 1);
    }

    /// Counts the answers of a turn, each of which has taken so long.
    pub(crate) fn record_turn(&self, answers: &mut RouteAnswers, micros: u64) {
        for place in answers.places.drain(..).map(usize::from) {
            let answers = std::mem::take(&mut answers.by_place[place]);
            self.by_place[place].record(micros, answers.into());
        }
    }

    /// No answers in a turn yet.
    pub(crate) fn no_answers(&self) -> RouteAnswers {
        let places = self.by_place.len();
        RouteAnswers {
            routes: Arc::clone(&self.routes),
            by_place: vec![0; places].into_boxed_slice(),
            places: Vec::with_capacity(places),
        }
    }

    /// All that was counted so far, by place.
    pub(crate) fn snapshots(&self) -> impl Iterator<Item = Latency> {
        self.by_place.iter().map(LatencyCounters::snapshot)
    }
}

impl RouteAnswers {
    /// Counts an answer to a request of a route, which is known by its index or not known.
    #[inline]
    pub(crate) fn note(&mut self, route: Option<usize>) {
        let place = self.routes.place(route);
        let count = &mut self.by_place[place];
        if *count == 0 {
            self.places.push(place as u16);
        }
        *count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(known: &[String]) -> Arc<MeasuredRoutes> {
        let known: Vec<Arc<str>> = known.iter().map(|route| route.as_str().into()).collect();
        Arc::new(MeasuredRoutes::new(&known, |route| route.starts_with("room.")))
    }

    fn counts(latencies: &RouteLatencies) -> Vec<(String, u64, u64)> {
        let names = latencies.routes.names().map(str::to_owned);
        let counts = latencies.snapshots().map(|it| (it.requests(), it.sum().as_micros() as u64));
        names.zip(counts).map(|(name, (requests, us))| (name, requests, us)).collect()
    }

    #[test]
    fn known_routes_of_requests_count_by_themselves_and_all_others_together() {
        let routes = measured(&["onPush", "room.a.b", "room.a.c"].map(str::to_owned));
        let latencies = RouteLatencies::new(&routes);
        for (route, us) in [(Some(1), 5), (Some(1), 7), (Some(0), 1), (None, 2), (Some(99), 4)] {
            latencies.record(route, us);
        }
        let mut answers = latencies.no_answers();
        for route in [Some(2), Some(1), Some(2)] {
            answers.note(route);
        }
        latencies.record_turn(&mut answers, 10);
        latencies.record_turn(&mut answers, 1_000);
        let expected = [("room.a.b", 3, 22), ("room.a.c", 2, 20), ("other", 3, 7)];
        assert_eq!(counts(&latencies), expected.map(|(name, n, us)| (name.to_owned(), n, us)));
    }

    #[test]
    fn so_many_routes_have_places_of_their_own() {
        let known: Vec<_> = (0..2 * MEASURED_ROUTES_MAX).map(|n| format!("room.a.r{n}")).collect();
        let routes = measured(&known);
        assert_eq!(routes.names().count(), MEASURED_ROUTES_MAX + 1);
        let latencies = RouteLatencies::new(&routes);
        (0..known.len()).for_each(|route| latencies.record(Some(route), 1));
        let counts = counts(&latencies);
        assert_eq!(counts.last().unwrap().1, MEASURED_ROUTES_MAX as u64);
        assert!(counts[..MEASURED_ROUTES_MAX].iter().all(|(_, requests, _)| *requests == 1));
    }

    #[test]
    fn the_documentation_has_the_bound_and_its_memory() {
        let shard = (MEASURED_ROUTES_MAX + 1) * size_of::<LatencyCounters>();
        assert_eq!(shard.div_ceil(1024), 43);
        let text = include_str!("../../docs/limits.md");
        let row = format!("| fixed (`MEASURED_ROUTES_MAX`) | {MEASURED_ROUTES_MAX} |");
        assert!(text.contains(&row), "{row}");
        assert!(text.contains("| 43 KiB, where latency is measured by route"));
    }
}

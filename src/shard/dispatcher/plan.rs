//! A plan for each route, made once: where its messages go, and what they need before.

use crate::dispatch::Registry;
use crate::forward::{Carrier, ServerType, ServerTypeIndex};
use crate::route::edition::Edition;
use crate::route::registration::{schemas_without_handler, schemas_without_server};
use crate::route::table::{RouteEntry, RouteId, RouteTable};
use crate::shard::config::ShardConfig;

/// The destination of a route's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// A handler of this shard.
    Handler(u32),
    /// The own server type, which has no such handler.
    NoHandler,
    /// A server type whose servers are workers of this process.
    Workers(ServerTypeIndex),
    /// A server type whose servers are in a cluster.
    Cluster(ServerTypeIndex),
    /// A server type that nobody has heard of: the global filters see it, then it fails.
    Nowhere,
    /// Not three parts, or no server type: refused before any filter.
    Unknown,
    /// The method `constructor`: the client is kicked.
    Attack,
}

/// The plan for a route.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) target: Target,
    /// Its messages need nothing before their filters: no schema, no signature, no look at their
    /// rate. Their answers need nothing either.
    pub(super) is_plain: bool,
}

// One is looked up for each message.
const _: () = assert!(size_of::<Plan>() <= 12);

impl Plan {
    /// The plan for a route that has a schema in some session, or in none.
    pub(super) fn new(
        config: &ShardConfig,
        registry: &Registry,
        entry: &RouteEntry,
        has_schema: bool,
    ) -> Self {
        let target = Target::of(config, registry, &entry.text);
        let goes_on = matches!(target, Target::Handler(_) | Target::Workers(_));
        let needs_nothing = config.limits.messages_per_second == 0;
        #[cfg(feature = "crypto")]
        let needs_nothing = needs_nothing && !config.use_crypto;
        Self { target, is_plain: goes_on && needs_nothing && !has_schema }
    }
}

/// The plans for all known routes, in their order; a route has a schema as `has_schema` says.
pub(super) fn plans(
    config: &ShardConfig,
    registry: &Registry,
    has_schema: impl Fn(RouteId) -> bool,
) -> Vec<Plan> {
    let routes = (0..).map(RouteId::from_bits).zip(config.routes.iter());
    routes.map(|(id, entry)| Plan::new(config, registry, entry, has_schema(id))).collect()
}

impl Target {
    /// The destination of a route, by its text.
    pub(super) fn of(config: &ShardConfig, registry: &Registry, route: &str) -> Self {
        let mut parts = route.split('.');
        let (Some(server_type), Some(handler), Some(method), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Self::Unknown;
        };
        // Pomelo drops a route without a server type before it looks at the method.
        if server_type.is_empty() {
            return Self::Unknown;
        }
        if method == "constructor" {
            return Self::Attack;
        }
        if server_type == &*config.server_type {
            // Empty names can't be registered on purpose.
            let found = registry.find(route).filter(|_| !handler.is_empty());
            return found.map_or(Self::NoHandler, |found| Self::Handler(found as u32));
        }
        let mut types = (0..).map(ServerTypeIndex).zip(&config.server_types);
        match types.find(|(_, other)| &*other.name == server_type) {
            None => Self::Nowhere,
            Some((index, found)) => match found.carrier {
                Carrier::Workers { .. } => Self::Workers(index),
                Carrier::Remote(_) => Self::Cluster(index),
            },
        }
    }
}

/// Looks for schemas of requests that nobody handles, as far as that can be told: the binary, which
/// registers nothing, may have schemas of the game's that it has no use for.
pub(super) fn check_schemas(config: &ShardConfig, edition: &Edition, registry: &Registry) {
    let ShardConfig { routes, server_type: own, server_types, mistakes, .. } = config;
    let is_by_worker = |other: &ServerType| matches!(other.carrier, Carrier::Workers { .. });
    let schemas = edition.schemas();
    let is_registering = !config.registers.is_empty();
    if is_registering {
        let has_handler = |route: &str| registry.find(route).is_some();
        schemas_without_handler(routes, schemas, own, has_handler, mistakes);
    }
    if is_registering || server_types.iter().any(is_by_worker) {
        let is_served = |name: &str| server_types.iter().any(|other| &*other.name == name);
        schemas_without_server(routes, schemas, own, is_served, mistakes);
    }
}

/// Routes that are remembered by their text.
const RECENT_ROUTES: usize = 32;
const _: () = assert!(RECENT_ROUTES.is_power_of_two());

/// Routes that came lately by text, each where its text is hashed to. Most messages are of a few
/// routes, and to compare two texts is quicker than to look one up.
#[derive(Debug, Default)]
pub(super) struct RecentRoutes([Option<RouteId>; RECENT_ROUTES]);

impl RecentRoutes {
    #[inline(always)] // Every message by text asks.
    pub(super) fn find(&mut self, routes: &RouteTable, text: &[u8]) -> Option<RouteId> {
        let recent = &mut self.0[hash(text)];
        if let Some(recent) = *recent
            && is_same(routes.entry(recent).text.as_bytes(), text)
        {
            return Some(recent);
        }
        let found = routes.find(text);
        if found.is_some() {
            *recent = found;
        }
        found
    }
}

/// Hashes a route's text: routes of one server type differ in their ends, if not in their lengths.
#[inline]
fn hash(text: &[u8]) -> usize {
    let end = text.last_chunk().map_or(0, |end| u16::from_le_bytes(*end));
    let mixed = usize::from(end).wrapping_mul(31).wrapping_add(text.len());
    (mixed ^ mixed >> 5) & (RECENT_ROUTES - 1)
}

/// Compares two texts of the length that routes mostly have by two halves, which overlap. Others
/// are compared by a call.
#[inline(always)]
pub(super) fn is_same(a: &[u8], b: &[u8]) -> bool {
    const HALF: usize = size_of::<u128>();
    if a.len() != b.len() || !(HALF..=2 * HALF).contains(&a.len()) {
        return a == b;
    }
    a.first_chunk::<HALF>() == b.first_chunk() && a.last_chunk::<HALF>() == b.last_chunk()
}

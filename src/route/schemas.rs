//! The schemas of an edition, by route.

use super::edition_id::EditionId;
use super::table::{RouteId, RouteTable};
use crate::wire::protobuf::{ProtoTable, Protos, Schema};

/// The schemas that sessions are told of. Editions that differ in their codes only share one.
#[derive(Debug)]
pub(crate) struct Schemas {
    /// The first edition that has it.
    id: EditionId,
    protos: Option<ProtoTable>,
    /// The schema of requests, and the one of answers and pushes, by route; they are JSON without
    /// one. Empty where no route has any.
    by_route: Vec<[Option<Schema>; 2]>,
}

impl Schemas {
    /// Takes the schemas of known routes.
    pub(crate) fn new(id: EditionId, protos: Option<ProtoTable>, routes: &RouteTable) -> Self {
        let of_direction = |protos: &Protos, text: &str| protos.schema(text).cloned();
        let by_route = protos.iter().flat_map(|protos| {
            routes.iter().map(|entry| {
                [protos.client(), protos.server()].map(|it| of_direction(it, &entry.text))
            })
        });
        Self { id, by_route: by_route.collect(), protos }
    }

    pub(crate) fn id(&self) -> EditionId {
        self.id
    }

    pub(crate) fn protos(&self) -> Option<&ProtoTable> {
        self.protos.as_ref()
    }

    /// The schema of a route's requests.
    pub(crate) fn client(&self, route: RouteId) -> Option<&Schema> {
        self.by_route.get(route.index())?[0].as_ref()
    }

    /// The schema of a route's answers and pushes.
    pub(crate) fn server(&self, route: RouteId) -> Option<&Schema> {
        self.by_route.get(route.index())?[1].as_ref()
    }

    pub(crate) fn has_any(&self, route: RouteId) -> bool {
        self.client(route).is_some() || self.server(route).is_some()
    }
}

/// Leaves out the schemas of routes that were not known when the engine started: their messages
/// stay JSON, and no client is told otherwise. Gives these routes, in order.
pub(crate) fn known_schemas(protos: &ProtoTable, routes: &RouteTable) -> (ProtoTable, Vec<String>) {
    let is_known = |route: &str| routes.find(route.as_bytes()).is_some();
    let directions = [protos.client(), protos.server()];
    let all = directions.into_iter().flat_map(Protos::routes);
    let mut unknown: Vec<String> = all.filter(|it| !is_known(it)).map(str::to_owned).collect();
    unknown.sort();
    unknown.dedup();
    if unknown.is_empty() {
        return (protos.clone(), unknown);
    }
    let [client, server] = directions.map(|protos| protos.only(is_known));
    (ProtoTable::new(client, server), unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_of_unknown_routes_are_left_out() {
        let client = r#"{"a.b.c":{"required Point p":1},"x.y.z":{"required int32 n":1},
            "message Point":{"required int32 x":1}}"#;
        let server = r#"{"onMove":{"required int32 x":1},"x.y.z":{"required int32 n":1}}"#;
        let protos = ProtoTable::new(
            Protos::parse_text(client).unwrap(),
            Protos::parse_text(server).unwrap(),
        );
        let routes = RouteTable::new(["onMove".to_owned(), "a.b.c".to_owned()], None, None);
        let (known, unknown) = known_schemas(&protos, &routes);
        assert_eq!(unknown, ["x.y.z"]);
        assert!(!known.protos_json().contains("x.y.z"), "{}", known.protos_json());
        assert!(known.protos_json().contains("message Point"), "{}", known.protos_json());
        assert_ne!(known.version(), protos.version());
        let id = |text: &str| routes.find(text.as_bytes()).unwrap();
        let schemas = Schemas::new(EditionId::FIRST, Some(known), &routes);
        assert!(schemas.client(id("a.b.c")).is_some() && schemas.server(id("a.b.c")).is_none());
        assert!(schemas.has_any(id("onMove")) && schemas.client(id("onMove")).is_none());
        let all = RouteTable::new([], None, Some(&protos));
        assert_eq!(known_schemas(&protos, &all).0.version(), protos.version());
        let none = Schemas::new(EditionId::FIRST, None, &routes);
        assert!(!none.has_any(id("onMove")));
    }
}

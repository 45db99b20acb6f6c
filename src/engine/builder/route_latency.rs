//! The latency of requests by their routes.

use super::Builder;

impl Builder {
    /// Measures the time of requests by their routes, too:
    /// [`Metrics::routes`](crate::Metrics::routes), and `shaddock_route_duration_seconds` of the
    /// admin server.
    ///
    /// The first 256 routes of requests that the engine knows from its start have figures of their
    /// own: those of [`Self::handler`] and the like and of [`Self::routes`], then those of the
    /// dictionary and of the schemas. All others count under `other`, so that clients can't add any
    /// by what they send. What [`Self::register`] and workers handle is known if it is named by
    /// [`Self::routes`] or in the dictionary.
    ///
    /// ```
    /// use shaddock::{Engine, Reply, testing};
    ///
    /// const ECHO: &str = "connector.entry.echo";
    /// let builder = Engine::builder()
    ///     .handler(ECHO, |request, _| Reply::borrowed(request.body()))
    ///     .route_latency();
    /// let t = testing::Engine::new(builder);
    /// t.client().connect().request(ECHO, "{}");
    /// let routes = t.handle().metrics().unwrap().routes;
    /// assert_eq!((&*routes[0].route, routes[0].latency.requests()), (ECHO, 1));
    /// ```
    pub fn route_latency(mut self) -> Self {
        self.measures_routes = true;
        self
    }
}

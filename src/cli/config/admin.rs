//! `[admin]`: where operators, their tools and Prometheus look at the connector.

use shaddock::{AdminOptions, Builder, SECRET_BYTES_MAX};

use super::kind::{FLAG, TEXT};
use super::table::Table;
use super::{Section, Server};
use crate::cli::{lines, log, signals};

struct Admin {
    options: Option<AdminOptions>,
    measures_routes: bool,
}

pub(super) fn read(root: &mut Table<'_>, name: &'static str) -> Box<dyn Section> {
    let mut measures_routes = false;
    let options = root.table(name, |table| {
        table.read("route_latency", &mut measures_routes, FLAG);
        let socket = table.read_some("socket", TEXT);
        let listen = table.read_some("listen", TEXT);
        let token = read_token(table);
        let hosts = table.read_list("hosts", TEXT);
        let redact = table.read_list("redact", TEXT);
        let redact_routes = table.read_list("redact_routes", TEXT);
        if socket.is_none() && listen.is_none() {
            if token.is_some() {
                table.refuse("listen", "an address, as there is a token for it", None);
            }
            return None;
        }
        let mut options = AdminOptions::new()
            .hosts(hosts)
            .redact(redact)
            .redact_routes(redact_routes)
            .on_reload(signals::reload)
            .on_log_level(log::set_level)
            .lost_log_lines(|| lines::stderr().lost());
        if let Some(path) = socket {
            options = options.socket(path);
        }
        if let Some(address) = listen {
            options = options.listen(address);
        }
        match token {
            Some(token) => Some(options.token(token)),
            None => Some(options),
        }
    });
    Box::new(Admin { options, measures_routes })
}

fn read_token(table: &mut Table<'_>) -> Option<String> {
    let token = table.read_some("token", TEXT);
    let file = table.read_file("token_file", SECRET_BYTES_MAX);
    if token.is_some() && file.is_some() {
        table.refuse("token_file", "no value, as there is a token", None);
    }
    token.or_else(|| file.map(|text| text.trim().to_owned()))
}

impl Section for Admin {
    fn describe(&self, builder: Builder) -> Builder {
        let builder = if self.measures_routes { builder.route_latency() } else { builder };
        match &self.options {
            Some(options) => builder.admin(options.clone()),
            None => builder,
        }
    }

    fn describe_for(&self, builder: Builder, server: &Server) -> Builder {
        // Whoever shows the figures sees that sessions are closed, and shuts the engine down.
        let with_drain = |options: &AdminOptions| options.clone().on_drain(server.drain(), || {});
        let options = self.options.as_ref().map(with_drain);
        Self { options, ..*self }.describe(builder)
    }
}

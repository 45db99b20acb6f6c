//! `[server]`: what the connector is, and how it runs.

use std::thread;
use std::time::Duration;

use shaddock::{Builder, Codes, Drain, Driver, OnSecondBind, Reply, Shards};

use super::kind::{DRIVER, DURATION, FLAG, SINGLE_SESSION, TEXT, count};
use super::table::Table;
use crate::cli::demo;

/// The connector as a server of its cluster.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) id: String,
    server_type: String,
    shards: Option<u16>,
    driver: Driver,
    balance: bool,
    single_session: String,
    single_session_reason: String,
    shutdown_kick: Option<String>,
    address_setting: Option<String>,
    health_path: Option<String>,
    use_crypto: bool,
    echo: Option<String>,
    demo: bool,
    codes: Codes,
    /// The time that clients get when it stops, behind those of the next two.
    drain: Duration,
    drain_delay: Duration,
    drain_over: Duration,
    drain_refuses_logins: bool,
}

/// As long as Pomelo's own tools give a server.
const DRAIN: Duration = Duration::from_secs(5);

/// The server type of the demo's own handlers.
const DEMO_TYPE: &str = "connector";
/// Threads for the demo's chat.
const DEMO_WORKERS: u16 = 1;

pub(super) fn read(table: &mut Table<'_>) -> Server {
    let mut server = Server {
        id: "connector-1".into(),
        server_type: "connector".into(),
        shards: None,
        driver: Driver::Auto,
        balance: true,
        single_session: "off".into(),
        single_session_reason: "logged in elsewhere".into(),
        shutdown_kick: None,
        address_setting: None,
        health_path: None,
        use_crypto: false,
        echo: None,
        demo: false,
        codes: Codes::pomelo(),
        drain: DRAIN,
        drain_delay: Duration::ZERO,
        drain_over: Duration::ZERO,
        drain_refuses_logins: false,
    };
    table.read("id", &mut server.id, TEXT);
    table.read("type", &mut server.server_type, TEXT);
    server.shards = table.read_some("shards", count());
    table.read("driver", &mut server.driver, DRIVER);
    table.read("balance", &mut server.balance, FLAG);
    table.read("single_session", &mut server.single_session, SINGLE_SESSION);
    table.read("single_session_reason", &mut server.single_session_reason, TEXT);
    server.address_setting = table.read_some("address_setting", TEXT);
    server.health_path = table.read_some("health_path", TEXT);
    table.read("use_crypto", &mut server.use_crypto, FLAG);
    table.read("drain", &mut server.drain, DURATION);
    table.read("drain_delay", &mut server.drain_delay, DURATION);
    table.read("drain_over", &mut server.drain_over, DURATION);
    table.read("drain_refuses_logins", &mut server.drain_refuses_logins, FLAG);
    server.shutdown_kick = table.read_some("shutdown_kick", TEXT);
    server.echo = table.read_some("echo", TEXT);
    if let Some(echo) = &server.echo
        && !is_route_of(echo, &server.server_type)
    {
        table.refuse("echo", &format!("a route like {}.handler.method", server.server_type), None);
    }
    server.codes = table.table("codes", read_codes);
    table.read("demo", &mut server.demo, FLAG);
    if server.demo && server.server_type != DEMO_TYPE {
        let expected = format!("false, as the demo's handlers are of the type {DEMO_TYPE}");
        table.refuse("demo", &expected, None);
    }
    server
}

fn read_codes(table: &mut Table<'_>) -> Codes {
    let mut codes = Codes::pomelo();
    table.read("rate_limited", &mut codes.rate_limited, count());
    table.read("unknown_route", &mut codes.unknown_route, count());
    table.read("timed_out", &mut codes.timed_out, count());
    table.read("panicked", &mut codes.panicked, count());
    table.read("busy", &mut codes.busy, count());
    codes
}

impl Server {
    pub(super) fn describe(&self, builder: Builder) -> Builder {
        let mut builder = builder
            .server_id(&self.id)
            .server_type(&self.server_type)
            .shards(Shards::Count(self.shards()))
            .driver(self.driver)
            .balance(self.balance)
            .single_session(self.on_second_bind())
            .answer_codes(self.codes);
        if let Some(reason) = &self.shutdown_kick {
            builder = builder.shutdown_kick(reason);
        }
        if let Some(name) = &self.address_setting {
            builder = builder.address_setting(name);
        }
        if let Some(path) = &self.health_path {
            builder = builder.health_path(path);
        }
        if self.use_crypto {
            builder = builder.use_crypto();
        }
        if let Some(echo) = &self.echo {
            builder = builder.handler(echo, |request, _| Reply::borrowed(request.body()));
        }
        if self.demo {
            builder = demo::with_chat(demo::with_connector(builder), DEMO_WORKERS);
        }
        builder
    }

    /// The way in which it stops.
    pub(crate) fn drain(&self) -> Drain {
        let drain = Drain::within(self.drain).delay(self.drain_delay).over(self.drain_over);
        if self.drain_refuses_logins { drain.refuse_logins() } else { drain }
    }

    /// The fate of a second session of a uid, where one is allowed.
    pub(super) fn on_second_bind(&self) -> Option<OnSecondBind> {
        match &*self.single_session {
            "refuse" => Some(OnSecondBind::Refuse),
            "kick" => Some(OnSecondBind::KickFirst(self.single_session_reason.as_str().into())),
            "close" => Some(OnSecondBind::CloseFirst),
            _ => None,
        }
    }

    /// True if messages are forwarded to workers of this process.
    pub(super) fn forwards(&self) -> bool {
        self.demo
    }

    /// The number of shards. Not left to the engine, since a container's share of the cores
    /// may be less than the cores it sees.
    pub(crate) fn shards(&self) -> u16 {
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        self.shards.unwrap_or_else(|| u16::try_from(cores()).unwrap_or(u16::MAX))
    }
}

fn is_route_of(route: &str, server_type: &str) -> bool {
    let parts: Vec<&str> = route.split('.').collect();
    parts.len() == 3 && parts[0] == server_type && parts.iter().all(|part| !part.is_empty())
}

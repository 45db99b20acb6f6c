//! Checks of an engine's description, and its way to an engine that runs.

use std::sync::Arc;
use std::time::Duration;

use super::{Builder, PARTIES_MAX, Shards};
use crate::dispatch::Register;
use crate::engine::attachment::Attachment;
use crate::engine::listen::{LISTENERS_MAX, Listener};
use crate::engine::network::{self, NetworkForwarder};
use crate::engine::running::Engine;
use crate::engine::start::Plan;
use crate::engine::threads::ThreadCounts;
use crate::engine::{cores, listen, preflight};
use crate::error::{EngineOption, StartError};
use crate::forward::{Carrier, LaneFull, NetworkThreads, Route, ServerId, ServerType, WorkerIndex};
use crate::shard::ShardConfig;

/// The outcome of a description's checks.
pub(in crate::engine) struct Checked {
    pub(in crate::engine) counts: ThreadCounts,
    server_types: Vec<ServerType>,
    networks: Vec<NetworkThreads>,
}

/// The parts of a description that has been checked, for whoever runs it.
pub(in crate::engine) struct Parts {
    pub(in crate::engine) config: ShardConfig,
    /// The registrations of the workers of each forwarded type, in the order of the types.
    pub(in crate::engine) registers: Vec<Register>,
    pub(in crate::engine) networks: Vec<Box<dyn NetworkForwarder>>,
    pub(in crate::engine) routers: Vec<(String, Route)>,
    pub(in crate::engine) attachments: Vec<Box<dyn Attachment>>,
}

impl Builder {
    /// Checks the description, as far as that can be done before [`Self::start`].
    ///
    /// ```
    /// use shaddock::{Engine, Limits};
    ///
    /// let limits = Limits { lane_len: 0, ..Limits::default() };
    /// let error = Engine::builder().listen("127.0.0.1:3010").limits(limits).check().unwrap_err();
    /// assert!(error.to_string().contains("lane_len"), "{error}");
    /// ```
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn check(&self) -> Result<(), StartError> {
        let shards = match self.shards {
            Shards::PerCore => 1,
            Shards::Count(count) => count,
        };
        self.checked(shards)?;
        listen::resolve_all(&self.listeners).map(drop)
    }

    /// Starts the engine: when this returns, clients can connect.
    ///
    /// # Errors
    /// The first thing that is wrong with the description, the machine or its limits, and what to
    /// do about it.
    pub fn start(self) -> Result<Engine, StartError> {
        let cores = cores::cores();
        let shards = match self.shards {
            Shards::PerCore => u16::try_from(cores::count(&cores)).unwrap_or(u16::MAX),
            Shards::Count(count) => count,
        };
        let checked = self.checked(shards)?;
        let counts = checked.counts;
        let driver = preflight::choose(self.driver, counts)?;
        let gives_way = self.driver.gives_way();
        let listening = listen::listen(&self.listeners, usize::from(shards), self.limits.backlog)?;
        let balances = self.balances;
        let Parts { config, registers, networks, routers, attachments } = self.into_parts(checked);
        let config = Arc::new(config);
        let plan = Plan {
            config,
            counts,
            driver,
            gives_way,
            cores,
            listening,
            balances,
            registers,
            networks,
            routers,
        };
        let mut engine = plan.start()?;
        // One that fails stops the engine, which is dropped.
        for attachment in attachments {
            let attached = attachment.start(engine.handle(), engine.local_addr())?;
            engine.attach(attached);
        }
        Ok(engine)
    }

    /// Checks everything but the addresses; gives what it amounts to.
    pub(in crate::engine) fn checked(&self, shards: u16) -> Result<Checked, StartError> {
        self.limits.check()?;
        let networks = network::threads_of(&self.networks, self.workers(), shards);
        let server_types = self.server_types(&networks)?;
        let counts = self.counts(shards, &networks)?;
        self.check_options()?;
        Ok(Checked { counts, server_types, networks })
    }

    /// Takes apart a description that has been checked.
    pub(in crate::engine) fn into_parts(mut self, checked: Checked) -> Parts {
        let Checked { counts, server_types, networks: threads } = checked;
        let subscribers = network::subscribers(&self.networks, &threads);
        self.follow_clusters();
        let registers = self.forwards.iter().map(|(_, workers)| Arc::clone(&workers.register));
        let registers = registers.collect();
        let networks = std::mem::take(&mut self.networks);
        let routers = std::mem::take(&mut self.routers);
        let attachments = std::mem::take(&mut self.attachments);
        let config = self.into_config(counts, server_types, subscribers);
        Parts { config, registers, networks, routers, attachments }
    }

    /// Treats a second session of a uid as a cluster wants it, unless the embedder has said how.
    pub(in crate::engine) fn follow_clusters(&mut self) {
        let by_cluster = self.networks.iter().find_map(|network| network.on_second_bind());
        self.on_second_bind = self.on_second_bind.take().or(by_cluster);
    }

    /// The workers of all server types; too many are refused by [`Self::counts`].
    fn workers(&self) -> u16 {
        self.forwards.iter().fold(0, |sum, (_, workers)| sum.saturating_add(workers.count))
    }

    /// The threads, of which there may not be too many.
    fn counts(&self, shards: u16, networks: &[NetworkThreads]) -> Result<ThreadCounts, StartError> {
        let bad = |option, expected: &str| StartError::Option { option, expected: expected.into() };
        if shards == 0 {
            return Err(bad(EngineOption::Shards, "at least 1"));
        }
        let workers = usize::from(self.workers());
        let networks: usize = networks.iter().map(|threads| usize::from(threads.count)).sum();
        if usize::from(shards) + workers + networks > PARTIES_MAX {
            return Err(bad(EngineOption::ShardsAndWorkers, "1024 together at most"));
        }
        // Each is a part of a sum that is small enough.
        Ok(ThreadCounts { shards, workers: workers as u16, networks: networks as u16 })
    }

    /// The server types that are forwarded, each of which has one carrier.
    fn server_types(&self, networks: &[NetworkThreads]) -> Result<Vec<ServerType>, StartError> {
        let mut first_worker = 0_u16;
        let mut types: Vec<ServerType> = Vec::new();
        let check = |types: &[ServerType], option, name: &str| {
            if types.iter().any(|kind| &*kind.name == name) || *name == self.server_type {
                return Err(StartError::Option {
                    option,
                    expected: format!("another server type than `{name}`, which is taken"),
                });
            }
            Ok(())
        };
        for (name, workers) in &self.forwards {
            if workers.count == 0 {
                return Err(StartError::Option {
                    option: EngineOption::Forward,
                    expected: format!("given at least one worker for `{name}`"),
                });
            }
            check(&types, EngineOption::Forward, name)?;
            let servers = (1..=workers.count).map(|n| ServerId::from(&*format!("{name}-{n}")));
            let route = self.routers.iter().rev().find(|(other, _)| other == name);
            types.push(ServerType {
                name: name.as_str().into(),
                carrier: Carrier::Workers {
                    servers: servers.collect(),
                    first_worker: WorkerIndex(first_worker),
                    route: route.map(|(_, route)| Arc::clone(route)),
                },
                lane_full: self.lane_full_of(name),
            });
            // Too many are refused by their count, after the names.
            first_worker = first_worker.saturating_add(workers.count);
        }
        for (network, threads) in self.networks.iter().zip(networks) {
            for name in network.server_types() {
                check(&types, network.option(), name)?;
                let carrier = Carrier::Remote(*threads);
                let lane_full = self.lane_full_of(name);
                types.push(ServerType { name: name.into(), carrier, lane_full });
            }
        }
        Ok(types)
    }

    /// Checks what can't hold by itself, or together with another option.
    fn check_options(&self) -> Result<(), StartError> {
        let bad = |option, expected: &str| StartError::Option { option, expected: expected.into() };
        if self.listeners.is_empty() {
            return Err(bad(EngineOption::Listen, "an address like 127.0.0.1:3010"));
        }
        if self.listeners.len() > LISTENERS_MAX {
            return Err(bad(EngineOption::Listen, "given 64 times at most"));
        }
        self.listeners.iter().try_for_each(Listener::check)?;
        if self.has_two_handshakes {
            return Err(bad(
                EngineOption::OnHandshake,
                "left out where there is a user_handshake: one of them does the work of both",
            ));
        }
        #[cfg(feature = "crypto")]
        if self.use_crypto && self.listeners.iter().any(Listener::is_pitaya) {
            return Err(bad(
                EngineOption::UseCrypto,
                "left out where a listener has Pitaya's dialect",
            ));
        }
        let is_path = |path: &String| {
            path.starts_with('/')
                && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?')
        };
        if !self.health_path.as_ref().is_none_or(is_path) {
            return Err(bad(EngineOption::HealthPath, "a path like /healthz, without a query"));
        }
        // A heartbeat's timeout counts in milliseconds.
        let is_short = |time: Option<Duration>| time.is_some_and(|time| time.as_millis() == 0);
        if is_short(self.heartbeat) {
            return Err(bad(EngineOption::Heartbeat, "1 ms or more; leave it out to have none"));
        }
        if is_short(self.heartbeat_timeout) {
            return Err(bad(EngineOption::HeartbeatTimeout, "1 ms or more"));
        }
        if self.heartbeat_timeout.is_some() && self.heartbeat.is_none() {
            return Err(bad(
                EngineOption::HeartbeatTimeout,
                "left out where there is no heartbeat",
            ));
        }
        if let Some((name, _)) = self.routers.iter().find(|(name, _)| !self.is_forwarded(name)) {
            let expected = format!("of a server type that is forwarded, which `{name}` is not");
            return Err(StartError::Option { option: EngineOption::Route, expected });
        }
        if let Some((name, _)) = self.lanes_full.iter().find(|(name, _)| !self.is_forwarded(name)) {
            let expected = format!("of a server type that is forwarded, which `{name}` is not");
            return Err(StartError::Option { option: EngineOption::LaneFull, expected });
        }
        self.networks.iter().try_for_each(|network| network.check(&self.limits))?;
        self.attachments.iter().try_for_each(|attachment| attachment.check())
    }

    fn lane_full_of(&self, name: &str) -> LaneFull {
        let mut policies = self.lanes_full.iter().rev();
        policies.find(|(other, _)| other == name).map(|(_, policy)| *policy).unwrap_or_default()
    }

    fn is_forwarded(&self, name: &str) -> bool {
        self.forwards.iter().any(|(other, _)| other == name)
            || self.networks.iter().any(|network| network.server_types().contains(&name))
    }
}

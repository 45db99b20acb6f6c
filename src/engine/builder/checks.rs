//! Checks of an engine's description.

use std::sync::Arc;
use std::time::Duration;

use super::{Builder, PARTIES_MAX};
use crate::engine::listen::{LISTENERS_MAX, Listener};
use crate::engine::threads::ThreadCounts;
use crate::error::{EngineOption, StartError};
use crate::forward::{Carrier, LaneFull, ServerId, ServerType, WorkerIndex};

impl Builder {
    /// The threads, of which there may not be too many.
    pub(super) fn counts(&self, shards: u16) -> Result<ThreadCounts, StartError> {
        let bad = |option, expected: &str| StartError::Option { option, expected: expected.into() };
        if shards == 0 {
            return Err(bad(EngineOption::Shards, "at least 1"));
        }
        let workers: usize =
            self.forwards.iter().map(|(_, workers)| usize::from(workers.count)).sum();
        let networks = self.networks.len();
        if usize::from(shards) + workers + networks > PARTIES_MAX {
            return Err(bad(EngineOption::ShardsAndWorkers, "1024 together at most"));
        }
        // Each is a part of a sum that is small enough.
        Ok(ThreadCounts { shards, workers: workers as u16, networks: networks as u16 })
    }

    /// The server types that are forwarded, each of which has one carrier.
    pub(super) fn server_types(&self) -> Result<Vec<ServerType>, StartError> {
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
            first_worker = first_worker.saturating_add(workers.count);
        }
        for (index, network) in self.networks.iter().enumerate() {
            // Too many are refused by their count, after the names.
            let worker = WorkerIndex(first_worker.saturating_add(index as u16));
            for name in network.server_types() {
                check(&types, network.option(), name)?;
                let carrier = Carrier::Remote { worker };
                let lane_full = self.lane_full_of(name);
                types.push(ServerType { name: name.into(), carrier, lane_full });
            }
        }
        Ok(types)
    }

    /// Checks what can't hold by itself, or together with another option.
    pub(super) fn check_options(&self) -> Result<(), StartError> {
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

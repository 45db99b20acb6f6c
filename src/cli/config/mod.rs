//! The configuration of `shaddock serve`: a TOML file and the environment, read section by section.
//!
//! A section is a file here, with its line in [`SECTIONS`] and its keys in `shaddock.example.toml`.

mod admin;
mod dictionary;
mod environment;
mod handshake;
mod heartbeat;
mod host_filter;
mod kind;
mod limits;
mod listener;
mod maintenance;
mod log;
mod pipe;
mod pitaya;
mod pomelo;
mod problem;
mod protos;
mod push;
mod secret;
mod server;
mod table;
#[cfg(test)]
mod tests;
mod traces;

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::path::Path;

use shaddock::{
    Builder, Engine, EngineOption, FILE_BYTES_MAX, Handle, HandleError, StartError, read_text_file,
};

use environment::PREFIX;
pub(crate) use log::Log;
pub(crate) use problem::Problem;
use problem::Source;
pub(crate) use server::Server;
use table::{Changes, Table, Value, without_mark};

/// One section of the file, read.
trait Section: Send {
    /// Adds what it holds to the engine's description.
    fn describe(&self, builder: Builder) -> Builder;

    /// The same of a section that does something in the way that `[server]` says.
    fn describe_for(&self, builder: Builder, _server: &Server) -> Builder {
        self.describe(builder)
    }

    /// Gives a running engine the values of those keys that may change.
    fn apply(&self, _handle: &Handle) -> Result<(), HandleError> {
        Ok(())
    }

    /// True if it has somewhere to forward messages to.
    fn forwards(&self) -> bool {
        false
    }
}

/// A section's name and how it is read.
struct Entry {
    name: &'static str,
    read: fn(&mut Table<'_>, &'static str) -> Box<dyn Section>,
}

/// Every section, in the order of the example.
const SECTIONS: [Entry; 13] = [
    Entry { name: "listener", read: listener::read },
    Entry { name: "heartbeat", read: heartbeat::read },
    Entry { name: "dictionary", read: dictionary::read },
    Entry { name: "protos", read: protos::read },
    Entry { name: "host_filter", read: host_filter::read },
    Entry { name: "handshake", read: handshake::read },
    Entry { name: "maintenance", read: maintenance::read },
    Entry { name: "admin", read: admin::read },
    Entry { name: "traces", read: traces::read },
    Entry { name: "limits", read: limits::read },
    Entry { name: "push", read: push::read },
    Entry { name: "pomelo", read: pomelo::read },
    Entry { name: "pitaya", read: pitaya::read },
];

/// A whole configuration that holds.
pub(crate) struct Config {
    pub(crate) server: Server,
    pub(crate) log: Log,
    sections: Vec<Box<dyn Section>>,
    /// The value of each key, by its path.
    values: BTreeMap<String, Value>,
    /// A line for each key that is set: its value, if that is no secret, and where it is from.
    pub(crate) settings: Vec<String>,
}

impl Config {
    /// Reads a file, and what the environment adds. It may be a pipe that the process was started
    /// with.
    ///
    /// # Errors
    /// All that is wrong with it, in the order of its lines; what is wrong with the environment
    /// comes last.
    pub(crate) fn read(path: &Path) -> Result<Self, Vec<Problem>> {
        Self::read_by(path, pipe::read)
    }

    /// Reads a file another time, when a pipe is empty.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn read_again(path: &Path) -> Result<Self, Vec<Problem>> {
        Self::read_by(path, |path| read_text_file(path, FILE_BYTES_MAX))
    }

    fn read_by(
        path: &Path,
        read: impl FnOnce(&Path) -> io::Result<String>,
    ) -> Result<Self, Vec<Problem>> {
        let name = path.display().to_string();
        let text = read(path).map_err(|error| {
            vec![Problem::of_file(&name, "a file that can be read", &error.to_string())]
        })?;
        let folder = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
        let mut source = Source::new(name, folder, without_mark(text));
        source.credentials = env::var_os("CREDENTIALS_DIRECTORY").map(Into::into);
        let variables = env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with(PREFIX))?;
            Some((name, value))
        });
        for (name, value) in BTreeMap::from_iter(variables) {
            let Some(value) = value.to_str() else {
                return Err(vec![Problem::of_file(&name, "text in UTF-8", "other bytes")]);
            };
            source.add_variable(name, value);
        }
        Self::parse(&source)
    }

    fn parse(source: &Source) -> Result<Self, Vec<Problem>> {
        let mut root = Table::root(source)?;
        let server = root.table("server", server::read);
        let log = root.table("log", log::read);
        let read = |entry: &Entry| (entry.read)(&mut root, entry.name);
        let sections = SECTIONS.iter().map(read).collect();
        root.finish();
        let (values, problems) = root.take_notes();
        if !problems.is_empty() {
            return Err(problems);
        }
        let settings = root.settings(&values);
        let config = Self { server, log, sections, values, settings };
        config.builder().check().map_err(|error| vec![config.problem(&error, &root)])?;
        Ok(config)
    }

    /// The engine that the file describes.
    pub(crate) fn builder(&self) -> Builder {
        let builder = self.server.describe(Engine::builder());
        self.sections
            .iter()
            .fold(builder, |builder, section| section.describe_for(builder, &self.server))
    }

    /// True if messages are forwarded anywhere.
    pub(crate) fn forwards(&self) -> bool {
        self.server.forwards() || self.sections.iter().any(|section| section.forwards())
    }

    /// Finds the key that an engine would not start with.
    fn problem(&self, error: &StartError, root: &Table<'_>) -> Problem {
        let (key, wanted) = match error {
            // A variable of the environment, as others name it.
            StartError::Option { option: EngineOption::Traces(name), expected }
                if name.starts_with("OTEL_") =>
            {
                return Problem::of_variable(name, &format!("must be {expected}"));
            }
            StartError::Limits(error) => {
                (format!("limits.{}", error.key), format!("must be {}", error.expected))
            }
            StartError::Option { option, expected } => {
                let key = match option {
                    EngineOption::Shards | EngineOption::ShardsAndWorkers => "server.shards",
                    EngineOption::Driver => "server.driver",
                    EngineOption::Heartbeat => "heartbeat.interval",
                    EngineOption::Cluster("pomelo.server_type") => "pomelo.type",
                    EngineOption::Cluster("pitaya.server_type") => "pitaya.type",
                    EngineOption::HeartbeatTimeout => "heartbeat.timeout",
                    EngineOption::HealthPath => "server.health_path",
                    EngineOption::UseCrypto => "server.use_crypto",
                    EngineOption::Origins => "listener",
                    EngineOption::Listen => self.listener_twice().unwrap_or("listener"),
                    option => &option.to_string(),
                };
                (key.to_owned(), format!("must be {expected}"))
            }
            StartError::BadAddress { address, why } => {
                let found = self.values.iter().find(|(_, value)| value.is(address));
                let key = found.map_or("listener", |(key, _)| key);
                (key.to_owned(), format!("must be an address like 127.0.0.1:3010 ({why})"))
            }
            other => ("server".to_owned(), other.to_string()),
        };
        root.problem_at(&key, &wanted, self.values.get(&key))
    }

    /// The first listener whose address another one has.
    fn listener_twice(&self) -> Option<&str> {
        let is_address = |key: &str| key.starts_with("listener[") && key.ends_with("].address");
        let addresses = || self.values.iter().filter(|(key, _)| is_address(key));
        let is_twice =
            |value: &Value| addresses().filter(|(_, other)| value.is_as(other)).count() > 1;
        addresses().find(|(_, value)| is_twice(value)).map(|(key, _)| key.as_str())
    }

    /// Gives a running engine what differs in `next` and may change while it runs. Names the keys
    /// that can't.
    ///
    /// # Errors
    /// The engine is busy or has stopped; then this stays what it was, and may be asked again.
    pub(crate) fn change_to(
        &mut self,
        next: Self,
        handle: &Handle,
    ) -> Result<Changed, HandleError> {
        let mut changed = Changed::default();
        for key in self.values.keys().chain(next.values.keys()) {
            let (old, new) = (self.values.get(key), next.values.get(key));
            let has_changed = match (old, new) {
                (Some(old), Some(new)) => !old.is_as(new),
                // Of a table that comes or goes, only what is written there.
                (Some(value), None) | (None, Some(value)) => value.is_in_file(),
                (None, None) => false,
            };
            if !has_changed {
                continue;
            }
            let keys = match old.or(new).map(|value| value.changes) {
                Some(Changes::Running) => &mut changed.applied,
                _ => &mut changed.needs_restart,
            };
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        for (entry, section) in SECTIONS.iter().zip(&next.sections) {
            let is_of_it = |key: &String| key.split(['.', '[']).next() == Some(entry.name);
            if changed.applied.iter().any(is_of_it) {
                section.apply(handle)?;
            }
        }
        if changed.applied.iter().any(|key| key.starts_with("log.")) {
            next.log.apply();
        }
        // The rest of the engine stays as the old values say.
        self.values.retain(|_, value| value.changes == Changes::Restart);
        let running = next.values.into_iter();
        self.values.extend(running.filter(|(_, value)| value.changes == Changes::Running));
        Ok(changed)
    }
}

/// The keys that differ between two configurations.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) applied: Vec<String>,
    pub(crate) needs_restart: Vec<String>,
}

//! `[traces]`: spans of sampled messages for a collector of OpenTelemetry.

use shaddock::{Builder, Traces};

use super::Section;
use super::kind::{FLAG, TEXT, count};
use super::table::Table;

/// None where it is off.
struct Tracing(Option<Traces>);

pub(super) fn read(root: &mut Table<'_>, name: &'static str) -> Box<dyn Section> {
    root.table(name, |table| {
        let mut is_enabled = false;
        table.read("enabled", &mut is_enabled, FLAG);
        let endpoint = table.read_some("endpoint", TEXT);
        let ca_file = table.read_path("ca_file");
        let sample = table.read_some("sample", count::<u64>());
        let service = table.read_some("service", TEXT);
        if !is_enabled {
            return Box::new(Tracing(None));
        }
        let mut traces = Traces::new().environment();
        if let Some(url) = endpoint {
            traces = traces.endpoint(url);
        }
        if let Some(path) = ca_file {
            traces = traces.ca_file(path);
        }
        if let Some(every) = sample {
            traces = traces.sample(every);
        }
        if let Some(name) = service {
            traces = traces.service(name);
        }
        Box::new(Tracing(Some(traces)))
    })
}

impl Section for Tracing {
    fn describe(&self, builder: Builder) -> Builder {
        match &self.0 {
            Some(traces) => builder.traces(traces.clone()),
            None => builder,
        }
    }
}

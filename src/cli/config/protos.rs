//! `[protos]`: schemas of bodies, from Pomelo's files.

use shaddock::wire::protobuf::{ProtoTable, Protos};
use shaddock::{Builder, FILE_BYTES_MAX, Handle, HandleError};

use super::Section;
use super::table::Table;

/// None where no file is named.
struct Schemas(Option<ProtoTable>);

pub(super) fn read(root: &mut Table<'_>, name: &'static str) -> Box<dyn Section> {
    root.table(name, |table| {
        table.changes_while_running();
        let client = read_schemas(table, "client");
        let server = read_schemas(table, "server");
        let protos = (client.is_some() || server.is_some())
            .then(|| ProtoTable::new(client.unwrap_or_default(), server.unwrap_or_default()));
        Box::new(Schemas(protos))
    })
}

fn read_schemas(table: &mut Table<'_>, key: &'static str) -> Option<Protos> {
    let text = table.read_file(key, FILE_BYTES_MAX)?;
    match Protos::parse_text(&text) {
        Ok(protos) => Some(protos),
        Err(error) => {
            table.refuse(key, "Pomelo's JSON schemas", Some(&error.to_string()));
            None
        }
    }
}

impl Section for Schemas {
    fn describe(&self, builder: Builder) -> Builder {
        match &self.0 {
            Some(protos) => builder.protos(protos.clone()),
            None => builder,
        }
    }

    fn apply(&self, handle: &Handle) -> Result<(), HandleError> {
        for route in handle.set_protos(self.0.clone())? {
            tracing::warn!(
                route,
                "a schema of a route that is new needs a restart: its bodies stay JSON"
            );
        }
        Ok(())
    }
}

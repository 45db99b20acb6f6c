//! `[host_filter]`: who may not connect.

use shaddock::{Builder, Handle, HandleError, HostFilter, HostRule};

use super::Section;
use super::kind::HOST_RULE;
use super::table::Table;

struct Rules {
    deny: Vec<HostRule>,
    filter: HostFilter,
}

pub(super) fn read(root: &mut Table<'_>, name: &'static str) -> Box<dyn Section> {
    root.table(name, |table| {
        table.changes_while_running();
        let deny = table.read_list("deny", HOST_RULE);
        let mut filter = HostFilter::default();
        if let Err(error) = filter.add(&deny) {
            table.refuse("deny", "fewer rules", Some(&error.to_string()));
        }
        Box::new(Rules { deny, filter })
    })
}

impl Section for Rules {
    fn describe(&self, builder: Builder) -> Builder {
        builder.host_filter(self.filter.clone())
    }

    fn apply(&self, handle: &Handle) -> Result<(), HandleError> {
        handle.set_hosts(&self.deny)
    }
}

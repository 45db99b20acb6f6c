//! `[maintenance]`: a time in which nobody new comes in.

use shaddock::{Builder, Handle, HandleError, Maintenance};

use super::Section;
use super::handshake::read_refusal;
use super::kind::{FLAG, HOST_RULE};
use super::table::Table;

/// None where it is off.
struct Mode(Option<Maintenance>);

/// As HTTP has it for a service that is away for a while.
const CODE: u16 = 503;

pub(super) fn read(root: &mut Table<'_>, name: &'static str) -> Box<dyn Section> {
    root.table(name, |table| {
        table.changes_while_running();
        let mut is_enabled = false;
        table.read("enabled", &mut is_enabled, FLAG);
        let refusal = read_refusal(table, ["code", "message"], CODE);
        let allowed = table.read_list("allow", HOST_RULE);
        Box::new(Mode(is_enabled.then(|| Maintenance::new(refusal).allow(allowed))))
    })
}

impl Section for Mode {
    fn describe(&self, builder: Builder) -> Builder {
        builder.maintenance(self.0.clone())
    }

    fn apply(&self, handle: &Handle) -> Result<(), HandleError> {
        handle.set_maintenance(self.0.clone())
    }
}

//! `[handshake]`: the clients that are served, by what they say of themselves.

use shaddock::{Builder, ClientRules, ClientVersion, Handle, HandleError, Refusal};

use super::Section;
use super::kind::{FLAG, MEMBER, TEXT, VERSION, code};
use super::table::Table;

struct Rules(ClientRules);

/// The code that Pomelo's clients take for their being too old.
const CODE_OLD_CLIENT: u16 = 501;
/// As HTTP has it for somebody who is known and may not.
const CODE_OTHER_TYPE: u16 = 403;

pub(super) fn read(root: &mut Table<'_>, name: &'static str) -> Box<dyn Section> {
    root.table(name, |table| {
        table.changes_while_running();
        let least: Option<ClientVersion> = table.read_some("version_min", VERSION);
        let at = table.read_some("version_at", MEMBER);
        let mut is_required = false;
        table.read("version_required", &mut is_required, FLAG);
        let of_version = read_refusal(table, ["version_code", "version_message"], CODE_OLD_CLIENT);
        let types = table.read_list("types", TEXT);
        let of_type = read_refusal(table, ["types_code", "types_message"], CODE_OTHER_TYPE);
        let mut rules = ClientRules::new();
        if let Some(least) = least {
            rules = rules.version_min(least, of_version);
        } else if is_required {
            table.refuse("version_required", "false, as there is no version_min", None);
        }
        if is_required {
            rules = rules.version_required();
        }
        if let Some(at) = at {
            rules = rules.version_at(at);
        }
        if !types.is_empty() {
            rules = rules.types(types, of_type);
        }
        Box::new(Rules(rules))
    })
}

/// Reads the code and the text of an answer.
pub(super) fn read_refusal(
    table: &mut Table<'_>,
    [code_key, message_key]: [&'static str; 2],
    mut number: u16,
) -> Refusal {
    table.read(code_key, &mut number, code());
    match table.read_some(message_key, TEXT) {
        Some(message) => Refusal::code(number).text(message),
        None => Refusal::code(number),
    }
}

impl Section for Rules {
    fn describe(&self, builder: Builder) -> Builder {
        builder.client_rules(self.0.clone())
    }

    fn apply(&self, handle: &Handle) -> Result<(), HandleError> {
        handle.set_client_rules(self.0.clone())
    }
}

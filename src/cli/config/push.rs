//! `[[push]]`: what becomes of pushes to clients that do not read.

use shaddock::{Builder, SlowConsumer};

use super::Section;
use super::kind::{Kind, TEXT};
use super::table::Table;

struct Policies {
    all: Vec<(String, SlowConsumer)>,
}

/// The names of policies here.
const POLICIES: [(&str, SlowConsumer); 3] = [
    ("disconnect", SlowConsumer::Disconnect),
    ("drop_oldest", SlowConsumer::DropOldest),
    ("keep_latest", SlowConsumer::KeepLatest),
];

const POLICY: Kind<SlowConsumer> = Kind {
    expected: "\"disconnect\", \"drop_oldest\" or \"keep_latest\"",
    parse: |value| {
        let name = value.as_str()?;
        POLICIES.into_iter().find(|(other, _)| *other == name).map(|(_, policy)| policy)
    },
};

pub(super) fn read(root: &mut Table<'_>, name: &'static str) -> Box<dyn Section> {
    let all = root.tables(name, read_policy).into_iter().flatten().collect();
    Box::new(Policies { all })
}

/// A route's policy, unless there is nothing in the table.
fn read_policy(table: &mut Table<'_>) -> Option<(String, SlowConsumer)> {
    let route = table.read_some("route", TEXT);
    let policy = table.read_some("policy", POLICY);
    if route.is_none() && policy.is_some() {
        table.refuse("route", "the route of a push, such as \"onTick\"", None);
    }
    Some((route?, policy.unwrap_or_default()))
}

impl Section for Policies {
    fn describe(&self, builder: Builder) -> Builder {
        let set = |builder: Builder, (route, policy): &(String, SlowConsumer)| {
            builder.push_policy(route, *policy)
        };
        self.all.iter().fold(builder, set)
    }
}

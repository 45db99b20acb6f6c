//! `[[listener]]`: where clients connect.

use shaddock::{Builder, Listener};

use super::Section;
use super::kind::TEXT;
use super::table::Table;

struct Listeners {
    all: Vec<Listener>,
}

/// Where it listens if nothing else is said: nobody outside the machine gets in by accident.
const ADDRESS: &str = "127.0.0.1:3010";

pub(super) fn read(root: &mut Table<'_>, name: &'static str) -> Box<dyn Section> {
    let all = root.tables(name, |table| {
        let mut address = ADDRESS.to_owned();
        table.read("address", &mut address, TEXT);
        Listener::new(address)
    });
    Box::new(Listeners { all })
}

impl Section for Listeners {
    fn describe(&self, builder: Builder) -> Builder {
        self.all.iter().cloned().fold(builder, Builder::listen)
    }
}

//! A rule about the files of a folder: none uses names of another that, directly or by way of
//! others, uses names of it. Such files can only be read together.
//!
//! An arrow leads from a file to another of the folder that defines a name it uses. No type is
//! inferred, so a name counts only where it can mean one thing: names that several files of the
//! folder define are left out, and methods named like the rest of the crate's or the standard
//! library's ([`COMMON_METHODS`]), unless they are called on `self`.
//! Neither `mod` nor `pub use` is a use: both are a table of contents. A `mod.rs` is a file like
//! any other. One that holds the main type stands above the parts the type is made of, so the parts
//! must not name it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::source::{Kind, Source, module_path, test_modules, tokens};
use super::{File, Finding};

/// Methods of the standard library that are called so often that a call does not tell whose
/// method it is.
const COMMON_METHODS: &str = "add all any append as_mut as_ref as_slice as_str borrow borrow_mut \
    capacity clear clone cmp collect contains contains_key count default drain drop entry eq \
    extend filter find finish first flush fmt from get get_mut hash index insert into into_iter \
    is_empty iter iter_mut join keys last len load local_addr lock map max min new next parse peek poll pop \
    position push read recv remove replace reserve resize retain send set shutdown sort split \
    store sum swap take then truncate values wait wake with_capacity write";
/// As many names are told for each arrow.
const NAMES_TOLD: usize = 3;

/// The circles of every folder of `src/`, with all that is below it.
pub(super) fn circles(files: &[File]) -> Vec<Finding> {
    let folders: BTreeSet<&str> = files.iter().filter_map(|file| folder(&file.path)).collect();
    assert!(folders.len() > 10, "only {} folders were found", folders.len());
    folders.into_iter().flat_map(|folder| Folder::new(folder, files).findings()).collect()
}

/// The folder of `src/` that a file belongs to.
fn folder(path: &str) -> Option<&str> {
    let below = path.strip_prefix("src/")?;
    Some(&path[.."src/".len() + below.find('/')?])
}

/// The files of one folder, and the names each defines.
struct Folder<'a> {
    sources: Vec<Source<'a>>,
    /// The file that alone defines a name, `None` where several do, and what the name stands for.
    names: BTreeMap<&'a str, (Option<usize>, Vec<Kind>)>,
    /// The folder as a module.
    module: Vec<&'a str>,
    /// The names of its modules.
    modules: BTreeSet<&'a str>,
    /// Methods that the rest of the crate defines.
    other_methods: BTreeSet<&'a str>,
}

/// The arrows from one file: the names it uses of each other file.
type Arrows<'a> = BTreeMap<usize, BTreeSet<&'a str>>;

impl<'a> Folder<'a> {
    fn new(path: &'a str, files: &'a [File]) -> Self {
        let prefix = format!("{path}/");
        let files = files.iter().filter(|file| file.path.starts_with("src/"));
        let (files, others): (Vec<_>, Vec<_>) = files
            .map(|file| (file, tokens(&file.code)))
            .partition(|(file, _)| file.path.starts_with(&prefix));
        let tests: Vec<Vec<&str>> = (files.iter())
            .flat_map(|(file, tokens)| test_modules(&module_path(&file.path), tokens))
            .collect();
        let is_test = |file: &File| {
            let module = module_path(&file.path);
            module.contains(&"tests") || tests.iter().any(|test| module.starts_with(test))
        };
        let sources: Vec<Source<'a>> = (files.into_iter())
            .filter(|(file, _)| !is_test(file))
            .map(|(file, tokens)| Source::new(&file.path, tokens))
            .collect();
        let mut names: BTreeMap<&str, (Option<usize>, Vec<Kind>)> = BTreeMap::new();
        for (at, source) in sources.iter().enumerate() {
            for &(name, kind) in &source.defined {
                let (owner, kinds) = names.entry(name).or_insert((Some(at), Vec::new()));
                *owner = owner.filter(|owner| *owner == at);
                kinds.push(kind);
            }
        }
        let module = module_path(path);
        let below = sources.iter().flat_map(|source| source.module.iter().skip(module.len()));
        let modules = below.copied().collect();
        let others = others.into_iter().map(|(file, tokens)| Source::new(&file.path, tokens));
        let other_methods = others.flat_map(|source| source.defined);
        let other_methods = other_methods.filter(|(_, kind)| *kind == Kind::Method);
        let other_methods = other_methods.map(|(name, _)| name).collect();
        Self { modules, other_methods, module, names, sources }
    }

    fn findings(&self) -> Vec<Finding> {
        let arrows: Vec<Arrows<'_>> =
            self.sources.iter().enumerate().map(|(at, _)| self.arrows(at)).collect();
        let graph: Vec<Vec<usize>> =
            arrows.iter().map(|arrows| arrows.keys().copied().collect()).collect();
        let finding = |circle: Vec<usize>| {
            let mut advice = format!("cut the circle of {} files:", circle.len());
            for &from in &circle {
                for (to, names) in arrows[from].iter().filter(|(to, _)| circle.contains(to)) {
                    let told: Vec<&str> = names.iter().copied().take(NAMES_TOLD).collect();
                    let more = match names.len().saturating_sub(NAMES_TOLD) {
                        0 => String::new(),
                        more => format!(" and {more} more"),
                    };
                    let (from, to) = (self.sources[from].path, self.sources[*to].path);
                    write!(advice, "\n  {from} -> {to}: {}{more}", told.join(", "))
                        .expect("a string takes any text");
                }
            }
            Finding { path: self.sources[circle[0]].path.into(), line: 1, advice }
        };
        circles_of(&graph).into_iter().map(finding).collect()
    }

    fn arrows(&self, at: usize) -> Arrows<'a> {
        let source = &self.sources[at];
        let mut arrows = Arrows::new();
        let is_inside = |path: &[&str]| self.is_inside(source, path);
        for found in source.uses(&is_inside) {
            let Some((Some(owner), kinds)) = self.names.get(found.name) else { continue };
            let is_common = || COMMON_METHODS.split(' ').any(|name| name == found.name);
            let is_anyones = || self.other_methods.contains(found.name) || is_common();
            let is_here = |name: &str| self.names.contains_key(name);
            let fits = kinds.iter().any(|&kind| found.fits(kind, &is_here));
            if *owner != at && fits && !(found.is_of_any_type() && is_anyones()) {
                arrows.entry(*owner).or_default().insert(found.name);
            }
        }
        arrows
    }

    /// Tells whether a path of modules, as it stands in `source`, leads into this folder.
    fn is_inside(&self, source: &Source<'_>, path: &[&str]) -> bool {
        let mut absolute = source.module.clone();
        match path[0] {
            "crate" => absolute = path[1..].to_vec(),
            "self" => {}
            "super" => {
                let levels = path.iter().take_while(|&&name| name == "super").count();
                absolute.truncate(absolute.len().saturating_sub(levels));
                absolute.extend(&path[levels..]);
            }
            name => return self.modules.contains(name),
        }
        absolute.starts_with(&self.module)
    }
}

/// The sets of more than one node that all lead to each other, in the order of their first node.
fn circles_of(graph: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let reached: Vec<BTreeSet<usize>> = (0..graph.len()).map(|from| reached(graph, from)).collect();
    let mut circles: Vec<Vec<usize>> = Vec::new();
    for from in 0..graph.len() {
        let is_new = !circles.iter().any(|circle| circle.contains(&from));
        if is_new && reached[from].contains(&from) {
            circles.push(
                reached[from].iter().copied().filter(|&to| reached[to].contains(&from)).collect(),
            );
        }
    }
    circles
}

/// The nodes that can be reached from one; itself only where a way leads back.
fn reached(graph: &[Vec<usize>], from: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut waiting = vec![from];
    while let Some(node) = waiting.pop() {
        waiting.extend(graph[node].iter().filter(|&&to| reached.insert(to)));
    }
    reached
}

mod rules {
    use super::*;

    /// The findings for the folder `src/a` with these files.
    fn findings(files: &[(&str, &str)]) -> Vec<String> {
        let path = |path: &str| format!("src/a/{path}").replace("a/../", "");
        let file = |&(name, text): &(&str, &str)| File::new(&path(name), text);
        let files: Vec<File> = files.iter().map(file).collect();
        Folder::new("src/a", &files).findings().iter().map(Finding::to_string).collect()
    }

    /// Tells whether `b.rs` with `text` uses something of `c.rs`, which uses something of it.
    fn is_circle(c: &str, text: &str) -> bool {
        let text = format!("pub(super) struct OfB;\n{text}");
        let c = format!("use super::b::OfB;\n{c}");
        let other = "impl Other { fn other(&self) {} }";
        let found = findings(&[("b.rs", &text), ("c.rs", &c), ("../other.rs", other)]);
        assert!(found.len() < 2);
        found.len() == 1
    }

    #[test]
    fn a_folder_is_one_of_the_source_with_all_below_it() {
        assert_eq!(folder("src/a/b/c.rs"), Some("src/a"));
        assert_eq!(folder("src/a.rs"), None);
        assert_eq!(folder("tests/a/b.rs"), None);
    }

    #[test]
    fn a_circle_is_found_with_the_names_that_make_it() {
        let found = findings(&[
            ("mod.rs", "mod b;\nmod c;\nmod d;\nuse b::B;\nstruct Main { b: B }"),
            ("b.rs", "use super::c::C;\npub struct B { c: C }\nimpl B { pub fn b(&self) {} }"),
            ("c.rs", "pub struct C;\nuse super::d::D;\nimpl C { fn c(&self, d: D) { d.d(); } }"),
            ("d.rs", "pub struct D;\nimpl D { pub fn d(&self) { self.b.b() } }"),
        ]);
        let expected = "src/a/b.rs:1: cut the circle of 3 files:\
            \n  src/a/b.rs -> src/a/c.rs: C\
            \n  src/a/c.rs -> src/a/d.rs: D, d\
            \n  src/a/d.rs -> src/a/b.rs: b";
        assert_eq!(found, [expected]);
    }

    #[test]
    fn a_part_that_names_the_type_made_of_it_is_in_a_circle() {
        let main = "mod b;\nuse b::B;\npub(crate) struct Main { b: B }";
        let part = "pub(super) struct B;";
        assert!(findings(&[("mod.rs", main), ("b.rs", part)]).is_empty());
        let part = "use super::Main;\npub(super) struct B;\nimpl Main { fn b(&self) {} }";
        assert_eq!(findings(&[("mod.rs", main), ("b.rs", part)]).len(), 1);
        // A table of contents stands nowhere.
        let main = "mod b;\npub use b::B;\npub(crate) use b::{f, g};\npub struct Main;";
        assert!(findings(&[("mod.rs", main), ("b.rs", part)]).is_empty());
    }

    #[test]
    fn two_circles_are_two_findings() {
        let found = findings(&[
            ("b.rs", "use super::c::C;\npub struct B(C);"),
            ("c.rs", "pub struct C(super::b::B);"),
            ("d.rs", "use super::{b::B, e::E};\npub struct D(E, B);"),
            ("e/mod.rs", "use super::d::D;\npub enum E { D(D) }"),
        ]);
        assert_eq!(found.len(), 2);
        assert!(found[1].contains("src/a/e/mod.rs -> src/a/d.rs: D"), "{}", found[1]);
    }

    #[test]
    fn what_looks_like_a_use_is_one() {
        for (defined, used) in [
            ("pub fn f() {}", "use super::*;\nfn b() { f(); }"),
            ("pub fn f() {}", "use super::c::f;"),
            ("pub fn f() {}", "use super::{c::{g, f as h}, d};"),
            ("pub fn f() {}", "fn b() { x.map(super::c::f); }"),
            ("pub fn f() {}", "fn b() { c::f::<u8>(); }"),
            ("pub fn f() {}", "fn b() { crate::a::c::f(); }"),
            ("impl C { fn f(&self) {} }", "fn b() { x.f(); }"),
            ("impl C { fn f(&self) {} }", "fn b() { x.f::<u8>(); }"),
            ("struct C; impl C { fn f(&self) {} }", "fn b() { x.map(C::f); }"),
            ("impl C { fn f(&self) {} }", "impl C { fn b() { x.map(Self::f); } }"),
            ("impl C { fn other(&self) {} }", "impl C { fn b(&self) { self.other(); } }"),
            ("trait C { fn f(&self); }", "fn b() { x.f(); }"),
            ("enum C { D }", "fn b(_: &super::c::C) {}"),
            ("static C: u8 = 1;", "use super::*;\nfn b() { C + 1; }"),
            ("const C: u8 = 1;", "fn b() { super::c::C + 1; }"),
            ("struct D; impl D { const C: u8 = 1; }", "fn b() { D::C + 1; }"),
            ("type C = u8;", "use super::*;\nfn b(_: *const C) {}"),
            ("macro_rules! c { () => {} }", "c!();"),
            ("pub struct C;", "use super::c::*;\nenum B { D(C) }"),
            ("pub struct C;", "pub use super::c::C;\nenum B { D(C) }"),
        ] {
            assert!(is_circle(defined, used), "{defined}\n{used}");
        }
    }

    #[test]
    fn what_only_looks_like_a_use_is_none() {
        for (defined, used) in [
            ("pub fn f() {}", "// f()\nfn b() { \"f()\"; }"),
            ("pub fn f() {}", "#[cfg(test)]\nmod tests { fn b() { f(); } }"),
            ("pub fn f() {}", "use super::*;\nfn b() { x.f(); }"),
            ("pub fn f() {}", "fn b() { let f = 1; f + x.f }"),
            ("pub fn f() {}", "fn b() { crate::d::f(); std::mem::f(); mem::f() }"),
            ("pub fn f() {}", "use crate::d::{e, f};\nfn b() { f(); }"),
            ("impl C { fn f(&self) {} }", "use super::*;\nfn b() { f(); x.f; }"),
            ("impl C { fn f(&self) {} }", "fn b() { Duration::f(1); }"),
            ("impl C { fn f(&self) {} }", "impl D { fn f(&self) { self.f() } }"),
            ("impl C { fn get(&self) {} }", "fn b() { x.get(); }"),
            ("impl C { fn other(&self) {} }", "fn b() { x.other(); self.x.other(); }"),
            ("pub struct C;", "fn b(_: C) {}"),
            ("impl Clone for C { fn f(&self) {} }", "fn b() { x.f(); }"),
            ("impl Iterator for C { type D = u8; }", "fn b(_: D) {}"),
            ("pub struct C;", "use super::*;\nenum B { D(u8), C }"),
            ("pub struct C;", "use super::*;\nenum B { #[default] C { a: [u8; 2] } }"),
            ("pub struct Cc;", "use super::*;\nfn b() { D::Cc; Self::Cc }"),
            ("pub struct C;", "use crate::d::C;\nfn b(_: C) {}"),
            ("pub struct C;", "use std::d::D as C;\nfn b(_: C) {}"),
            ("fn c() { const C: u8 = 1; }", "use super::*;\nfn b(_: C) {}"),
            ("#[cfg(test)]\nstruct C;\nstruct D;", "use super::*;\nfn b(_: C) {}"),
            ("struct C;", "mod C;\nuse super::*;\nfn b(_: &'C u8) {}"),
        ] {
            assert!(!is_circle(defined, used), "{defined}\n{used}");
        }
    }

    #[test]
    fn files_of_tests_are_left_out() {
        let main = ("mod.rs", "mod b;\n#[cfg(test)]\nmod odd;\nuse b::B;\npub struct Main(B);");
        let part = ("b.rs", "pub struct B;");
        let test = "use super::Main;\nimpl Main {}";
        for path in ["tests.rs", "tests/c.rs", "odd.rs", "odd/c.rs", "b/tests/c.rs"] {
            assert!(findings(&[main, part, (path, test)]).is_empty(), "{path}");
        }
        let other = ("c.rs", "use super::B;\npub struct Odd;");
        let circle = ("b.rs", "use super::c::Odd;\npub struct B(Odd);");
        assert_eq!(findings(&[main, circle, other]).len(), 1);
    }
}

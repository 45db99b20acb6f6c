//! A rule about the public surface: each function of it is shown in an example, and so stays as it
//! is documented, as examples are compiled.
//!
//! An example of a type may show several of its functions: any on the type's page counts, be it of
//! the type itself or of another of its functions. A function outside of types is shown by its
//! module or a neighbour. `pub` is taken at its word, as `unreachable_pub` refuses it where nobody
//! gets to.

use std::collections::{BTreeMap, BTreeSet};

use super::source::tokens;
use super::{File, Finding, code_of, indent, indent_is, is_word, without_tests};

/// Public for the crate's own benches, fuzz targets and simulation.
const INSIDE: [&str; 3] = ["src/internals.rs", "src/internals/", "src/simulated.rs"];

/// The public functions that no example shows.
pub(super) fn missing(files: &[File]) -> Vec<Finding> {
    let is_public = |file: &&File| {
        file.path.starts_with("src/") && !INSIDE.iter().any(|path| file.path.starts_with(path))
    };
    let surfaces: Vec<(&File, Surface<'_>)> =
        files.iter().filter(is_public).map(|file| (file, Surface::of(file))).collect();
    let mut homes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (file, surface) in &surfaces {
        for name in &surface.types {
            homes.entry(name).or_default().push(&file.path);
        }
    }
    let page = |path: &str, owner: Option<&str>| match owner {
        None => format!("{path} "),
        Some(name) => format!("{} {name}", home(&homes, path, name)),
    };
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, surface) in &surfaces {
        for example in &surface.examples {
            let names = shown.entry(page(&file.path, example.owner)).or_default();
            names.extend(called(&example.code, example.owner));
        }
    }
    let mut findings = Vec::new();
    for (file, surface) in &surfaces {
        for function in surface.functions.iter().filter(|function| !function.is_excused) {
            let is_on = |page| {
                shown.get(&page).is_some_and(|names: &BTreeSet<_>| names.contains(function.name))
            };
            let of_parent = || match (function.owner, file.path.rsplit_once('/')) {
                (None, Some((folder, _))) => is_on(page(&format!("{folder}/mod.rs"), None)),
                _ => false,
            };
            if !is_on(page(&file.path, function.owner)) && !of_parent() {
                let name = function.name;
                let advice = format!(
                    "no example calls `{name}`: give it one, or call it in an example on its page"
                );
                findings.push(file.finding(function.line, advice));
            }
        }
    }
    findings
}

/// The file that defines the type `name`, as the file `path` sees it: of several the nearest.
fn home<'a>(homes: &BTreeMap<&str, Vec<&'a str>>, path: &'a str, name: &str) -> &'a str {
    let folders = |other: &str| {
        let both = path.split(['/', '.']).zip(other.split(['/', '.']));
        both.take_while(|(ours, theirs)| ours == theirs).count()
    };
    let nearest = homes.get(name).and_then(|paths| paths.iter().max_by_key(|other| folders(other)));
    nearest.copied().unwrap_or(path)
}

/// The public functions of a file, and its examples.
#[derive(Default)]
struct Surface<'a> {
    types: Vec<&'a str>,
    functions: Vec<Function<'a>>,
    examples: Vec<Example<'a>>,
}

struct Function<'a> {
    /// The type, `None` outside of types.
    owner: Option<&'a str>,
    name: &'a str,
    line: usize,
    /// True if it has an example of its own, or is one that needs none.
    is_excused: bool,
}

struct Example<'a> {
    owner: Option<&'a str>,
    code: String,
}

impl<'a> Surface<'a> {
    fn of(file: &'a File) -> Self {
        let code = without_tests(&file.code);
        let texts: Vec<&str> = file.text.lines().collect();
        // The same lines of the file that lives longer, blank in tests.
        let lines = file.code.lines().zip(code.lines());
        let lines: Vec<&str> =
            lines.map(|(line, kept)| if kept.is_empty() { "" } else { line }).collect();
        let mut surface = Self::default();
        let of_module = texts.iter().filter_map(|text| text.trim_start().strip_prefix("//!"));
        let of_module = examples(of_module.collect());
        surface.examples.extend(of_module.map(|code| Example { owner: None, code }));
        let mut block: Option<Block<'_>> = None;
        let mut doc: Vec<&str> = Vec::new();
        let mut is_hidden = false;
        for (at, (&text, &line)) in texts.iter().zip(&lines).enumerate() {
            if let Some(text) = text.trim_start().strip_prefix("///") {
                doc.push(text);
                continue;
            }
            if block.as_ref().is_some_and(|block| block.ends_at(line)) {
                block = None;
            }
            let item = line.trim_start();
            is_hidden |= text.trim() == "#[doc(hidden)]";
            if item.is_empty() || item.starts_with('#') {
                // An attribute stands between a doc and its item, and so may a comment.
                continue;
            }
            let examples: Vec<String> = examples(std::mem::take(&mut doc)).collect();
            let opened = Block::opened_by(line);
            let mut owner = block.as_ref().map(|block| block.owner);
            if let Some(name) = type_name(item) {
                surface.types.push(name);
                owner = Some(name);
            } else if let Some(name) = function_name(item, block.as_ref()) {
                let is_excused = is_hidden || !examples.is_empty() || is_getter(name, &lines[at..]);
                surface.functions.push(Function { owner, name, line: at, is_excused });
            }
            surface.examples.extend(examples.into_iter().map(|code| Example { owner, code }));
            block = opened.or(block);
            is_hidden = false;
        }
        surface
    }
}

/// What a type's functions stand in.
struct Block<'a> {
    owner: &'a str,
    indent: usize,
    /// True if its functions are public without a word.
    is_trait: bool,
}

impl<'a> Block<'a> {
    /// An `impl` of a type's own, or a public trait.
    fn opened_by(line: &'a str) -> Option<Self> {
        let item = line.trim_start();
        let indent = indent(line);
        if line.ends_with('}') {
            return None;
        }
        if let Some(rest) = item.strip_prefix("pub trait ") {
            return Some(Self { owner: first_word(rest), indent, is_trait: true });
        }
        let rest = item.strip_prefix("impl")?;
        let rest = match rest.strip_prefix('<') {
            Some(generics) => &generics[generics_len(generics)..],
            None => rest,
        };
        let path = rest.strip_prefix(' ').filter(|rest| !rest.contains(" for "))?;
        let path = path.split(['<', ' ']).next().unwrap_or_default();
        Some(Self { owner: path.rsplit("::").next()?, indent, is_trait: false })
    }

    fn ends_at(&self, line: &str) -> bool {
        indent_is(line, self.indent) && line.trim() == "}"
    }
}

/// The length of generics up to their end, behind the bracket that opens them.
fn generics_len(text: &str) -> usize {
    let mut depth = 1;
    for (at, character) in text.char_indices() {
        match character {
            '<' => depth += 1,
            '>' if !text[..at].ends_with('-') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

fn first_word(text: &str) -> &str {
    &text[..text.find(|character| !is_word(character)).unwrap_or(text.len())]
}

/// The name of the public type that is defined here.
fn type_name(item: &str) -> Option<&str> {
    let kinds = ["pub struct ", "pub enum ", "pub trait ", "pub union "];
    kinds.iter().find_map(|kind| item.strip_prefix(kind)).map(first_word)
}

/// The name of the public function that is defined here.
fn function_name<'a>(item: &'a str, block: Option<&Block<'_>>) -> Option<&'a str> {
    let is_of_trait = block.is_some_and(|block| block.is_trait);
    let item = if is_of_trait { item } else { item.strip_prefix("pub ")? };
    let mut item = item;
    for word in ["const ", "async ", "unsafe "] {
        item = item.strip_prefix(word).unwrap_or(item);
    }
    item.strip_prefix("fn ").map(first_word)
}

/// True of a function that gives the field of its name: the field's type shows all there is to it.
fn is_getter(name: &str, lines: &[&str]) -> bool {
    let [head, body, end, ..] = lines else { return false };
    let body = body.trim().trim_start_matches(['&', '*']);
    let is_plain = |part: &str| part.trim_end_matches("()").chars().all(is_word);
    let Some(path) = body.strip_prefix("self.") else { return false };
    head.contains("(&self)")
        && end.trim() == "}"
        && path.split('.').any(|part| part == name)
        && path.split('.').all(is_plain)
}

/// The examples of a doc that are compiled, as code.
fn examples(doc: Vec<&str>) -> impl Iterator<Item = String> {
    let mut examples = Vec::new();
    let mut open: Option<Option<String>> = None;
    for line in doc {
        if let Some(words) = line.trim().strip_prefix("```") {
            open = match open.take() {
                Some(example) => {
                    examples.extend(example);
                    None
                }
                None => Some(is_compiled(words).then(String::new)),
            };
        } else if let Some(Some(example)) = &mut open {
            example.push_str(line.trim().trim_start_matches("# "));
            example.push('\n');
        }
    }
    examples.into_iter().map(|example| code_of(&example))
}

fn is_compiled(words: &str) -> bool {
    words.split(',').all(|word| matches!(word.trim(), "" | "rust" | "no_run" | "should_panic"))
}

/// The functions that an example calls, names behind their type, or implements. Of `.name()` it
/// does not show whose it is.
fn called(code: &str, owner: Option<&str>) -> Vec<String> {
    let tokens = tokens(code);
    let token = |at: Option<usize>| at.and_then(|at| tokens.get(at)).copied().unwrap_or_default();
    let is_shown = |at: usize| {
        let is_called = matches!(token(Some(at + 1)), "(" | "::");
        match (token(at.checked_sub(1)), owner) {
            (".", owner) => owner.is_some() && is_called,
            ("fn", Some(_)) => true,
            ("::", Some(owner)) => {
                matches!(token(at.checked_sub(2)), name if name == owner || name == ">")
            }
            (_, None) => is_called,
            _ => false,
        }
    };
    let shown = (0..tokens.len()).filter(|&at| is_shown(at));
    shown.map(|at| tokens[at].to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::{File, missing};

    fn found(texts: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<File> = texts.iter().map(|(path, text)| File::new(path, text)).collect();
        let findings = missing(&files);
        findings.iter().map(|finding| format!("{}:{}", finding.path, finding.line)).collect()
    }

    #[test]
    fn a_function_that_no_example_shows_is_refused() {
        let text = "pub fn a() {\n}\n/// ```\n/// b.a(a);\n/// ```\npub fn b() {\n}\n";
        assert_eq!(found(&[("src/a.rs", text)]), ["src/a.rs:1"]);
        // Of the folder.
        let module = ("src/b/mod.rs", "//! ```\n//! b::a(a);\n//! ```\n");
        assert_eq!(found(&[("src/b/a.rs", text), module]), [""; 0]);
        let text = "/// ```text\n/// a();\n/// ```\npub const fn a() {\n}\n";
        assert_eq!(found(&[("src/a.rs", text)]), ["src/a.rs:4"]);
        let text = "/// ```no_run\n/// a();\n/// ```\n// Why.\n#[inline]\npub fn a() {\n}\n";
        assert_eq!(found(&[("src/a.rs", text)]), [""; 0]);
        let text = "//! ```\n//! a();\n//! ```\npub fn a() {\n}\npub fn b() {\n}\n";
        assert_eq!(found(&[("src/a.rs", text)]), ["src/a.rs:6"]);
    }

    #[test]
    fn an_example_of_the_type_shows_its_functions() {
        let text = "/// ```\n/// A::new().set(1, \".b()\");\n/// ```\npub struct A;\n\
                    impl<T: Fn() -> U> A<T> {\n    pub fn new() {\n    }\n\
                    \x20   pub fn set() {\n    }\n    pub fn b() {\n    }\n}\n";
        assert_eq!(found(&[("src/a.rs", text)]), ["src/a.rs:10"]);
        let more = "impl A {\n    /// ```\n    /// a.b();\n    /// ```\n    pub fn c() {\n    }\n\
                    }\n";
        assert_eq!(found(&[("src/a.rs", text), ("src/a/c.rs", more)]), [""; 0]);
        // Of another type with the name.
        let other = format!("pub struct A;\n{more}");
        assert_eq!(found(&[("src/a.rs", text), ("src/b.rs", &other)]), ["src/a.rs:10"]);
    }

    #[test]
    fn getters_and_implementations_of_traits_need_no_example() {
        let text = "pub struct A {\n    b: u8,\n}\nimpl A {\n    pub fn b(&self) -> u8 {\n        \
                    self.b\n    }\n    pub fn c(&self) -> u8 {\n        self.b\n    }\n}\n\
                    impl B for A {\n    fn d() {\n    }\n}\npub trait B {\n    fn d();\n}\n";
        assert_eq!(found(&[("src/a.rs", text)]), ["src/a.rs:8", "src/a.rs:17"]);
        let hidden = "/// A.\n#[doc(hidden)]\npub fn a() {\n}\npub fn b() {\n}\n";
        assert_eq!(found(&[("src/a.rs", hidden)]), ["src/a.rs:5"]);
    }
}

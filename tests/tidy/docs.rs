//! Rules about documents: what cites one names a file and a heading that are there, and links lead
//! somewhere. One rule is about doc comments: they begin with their subject.

use std::collections::BTreeMap;
use std::{fs, path::Path};

use super::{File, Finding};

/// The folder of the protocol's pages. Written in two parts, as this file is checked too.
const PROTOCOL: &str = concat!("docs/", "protocol/");
/// Names by which texts outside of the repository were cited; each stood in brackets.
const OLD_NAMES: [&str; 8] = [
    "Pomelo semantics",
    "Pomelo wire protocol",
    "Pomelo protobuf",
    "Pomelo RPC",
    "Pitaya cluster",
    "Pitaya facts",
    "Pomelo's known bugs",
    "bugs and limits",
];
/// The beginnings of paths that a document may name if they exist in the repository.
const CODE_FOLDERS: [&str; 5] = ["src/", "tests/", "benches/", "examples/", ".ci/"];

/// Paths under which doc comments begin with a noun or a verb. Each folder joins once it does so.
const SUBJECT_FIRST: [&str; 4] = ["benches/", "examples/", "fuzz/", "src/"];
/// Words with which a doc comment puts its subject behind the predicate.
const SUBJECT_LAST: [&str; 9] =
    ["What", "Whether", "How", "Where", "When", "Why", "Who", "Whom", "Whose"];
/// Words of which the field has its own, in two halves, as this file is searched for them, too.
const FORMER_WORDS: [(&str, &str); 7] = [
    ("cour", "ier"),
    ("par", "cel"),
    ("se", "at"),
    ("he", "ars"),
    ("cross", "ings"),
    ("stat", "ion"),
    ("let", "ter"),
];

/// The documents, and the files that they may link to.
pub(super) struct Docs {
    /// The headings of every document, by its path from the root.
    headings: BTreeMap<String, Vec<String>>,
    /// True if there is such a file or folder.
    exists: Box<dyn Fn(&str) -> bool>,
}

impl Docs {
    pub(super) fn new(documents: &[File], exists: impl Fn(&str) -> bool + 'static) -> Self {
        let headings = |file: &File| (file.path.clone(), headings(&file.text));
        Self { headings: documents.iter().map(headings).collect(), exists: Box::new(exists) }
    }
}

/// The documents: those at the root, and those in `folders`.
pub(super) fn collect(root: &Path, folders: &[&str]) -> Vec<File> {
    let mut documents = Vec::new();
    collect_from(root, "", false, &mut documents);
    for folder in folders {
        collect_from(root, &format!("{folder}/"), true, &mut documents);
    }
    documents
}

fn collect_from(root: &Path, folder: &str, deep: bool, documents: &mut Vec<File>) {
    let Ok(entries) = fs::read_dir(root.join(folder)) else { return };
    for entry in entries {
        let entry = entry.expect("the folder can be read");
        let path = format!("{folder}{}", entry.file_name().to_string_lossy());
        if deep && entry.path().is_dir() {
            collect_from(root, &format!("{path}/"), true, documents);
        } else if path.ends_with(".md") {
            let text = fs::read_to_string(entry.path()).expect("a document is UTF-8");
            documents.push(File { path, text, code: String::new() });
        }
    }
}

/// A citation of the protocol's pages, `file, "heading"`, is of a page and a heading that are
/// there.
pub(super) fn citations(file: &File, docs: &Docs) -> Vec<Finding> {
    let prose = Prose::of(file);
    let mut findings = Vec::new();
    for (at, _) in prose.text.match_indices(PROTOCOL) {
        let rest = &prose.text[at..];
        let is_path = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
        let end = rest.find(|c| !is_path(c)).unwrap_or(rest.len());
        let page = rest[..end].trim_end_matches('.');
        if !page.ends_with(".md") {
            continue;
        }
        let line = prose.line(at);
        let Some(headings) = docs.headings.get(page) else {
            findings.push(file.finding(line, format!("there is no `{page}`")));
            continue;
        };
        let mut rest = rest[page.len()..].trim_start_matches('`');
        while let Some((heading, behind)) = ([", \"", " and \""].iter())
            .find_map(|before| rest.strip_prefix(before))
            .and_then(|rest| rest.split_once('"'))
        {
            if !headings.iter().any(|other| other == heading) {
                let advice = format!("`{page}` has no heading \"{heading}\"");
                findings.push(file.finding(line, advice));
            }
            rest = behind;
        }
    }
    findings
}

/// Nothing is cited that is not in the repository.
pub(super) fn old_names(file: &File) -> Vec<Finding> {
    let prose = Prose::of(file);
    let mut findings = Vec::new();
    for name in OLD_NAMES {
        for (at, _) in prose.text.match_indices(&format!("({name}")) {
            let behind = &prose.text[at + 1 + name.len()..];
            if behind.starts_with([',', ';', ')']) {
                let advice = format!("cite a page of {PROTOCOL} and its heading, not \"{name}\"");
                findings.push(file.finding(prose.line(at), advice));
            }
        }
    }
    findings
}

/// Nothing is called by a word that the field has another one for, but in the examples' games.
pub(super) fn former_words(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    if file.path.starts_with("examples/") {
        return findings;
    }
    for (at, line) in file.text.lines().enumerate() {
        let line = line.to_lowercase();
        let mut words = line.split(|c: char| !c.is_ascii_alphabetic());
        let is_former = |word: &str| {
            FORMER_WORDS.iter().any(|(head, tail)| {
                let rest = word.strip_prefix(head).and_then(|rest| rest.strip_prefix(tail));
                matches!(rest, Some("" | "s"))
            })
        };
        if let Some(word) = words.find(|word| is_former(word)) {
            findings.push(file.finding(at, format!("say `{word}` in the field's words")));
        }
    }
    findings
}

/// A doc comment begins with a noun or a verb.
fn first_words(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut is_doc = false;
    for (at, line) in file.text.lines().enumerate() {
        let line = line.trim_start();
        let doc = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        let is_first = !std::mem::replace(&mut is_doc, doc.is_some());
        let word = doc.filter(|_| is_first).and_then(|text| super::words(text).next());
        if let Some(word) = word.filter(|word| SUBJECT_LAST.contains(word)) {
            let advice = format!("begin with a noun or a verb, not with `{word}`");
            findings.push(file.finding(at, advice));
        }
    }
    findings
}

#[test]
fn doc_comments_begin_with_their_subject() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in super::FOLDERS {
        super::collect(root, folder, &mut files);
    }
    for path in SUBJECT_FIRST {
        assert!(files.iter().any(|file| file.path.starts_with(path)), "there is no {path}");
    }
    files.retain(|file| SUBJECT_FIRST.iter().any(|path| file.path.starts_with(path)));
    let findings: Vec<Finding> = files.iter().flat_map(first_words).collect();
    let report: String = findings.iter().map(|finding| format!("\n{finding}")).collect();
    assert!(findings.is_empty(), "{} findings:{report}", findings.len());
}

/// A link of a document leads to a file of the repository, and its anchor to a heading.
pub(super) fn links(file: &File, docs: &Docs) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in text_lines(&file.text) {
        let line = without_code(line);
        let inline = line.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
        let defined = line.strip_prefix('[').and_then(|rest| Some(rest.split_once("]: ")?.1));
        for target in inline.chain(defined).filter(|target| !target.contains(':')) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match path {
                "" => file.path.clone(),
                path => resolve(&file.path, path),
            };
            let is_there = (docs.exists)(&path);
            let leads = match docs.headings.get(&path) {
                Some(headings) if !anchor.is_empty() => {
                    headings.iter().any(|heading| slug(heading) == anchor)
                }
                _ => true,
            };
            if !is_there || !leads {
                findings.push(file.finding(at, format!("the link `{target}` leads nowhere")));
            }
        }
    }
    findings
}

/// A path of code that a document or a comment names is one of the repository's.
pub(super) fn code_paths(file: &File, docs: &Docs) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in text_lines(&file.text) {
        for span in line.split('`').skip(1).step_by(2) {
            let is_path = CODE_FOLDERS.iter().any(|folder| span.starts_with(folder))
                && !span.contains([' ', '*', '{', '…']);
            if is_path && !(docs.exists)(span) {
                findings.push(file.finding(at, format!("there is no `{span}`")));
            }
        }
    }
    findings
}

/// A file's text without the marks of comments and with its lines joined, so that what is wrapped
/// is found.
struct Prose {
    text: String,
    /// The offset of each line.
    starts: Vec<usize>,
}

impl Prose {
    fn of(file: &File) -> Self {
        let mut prose = Self { text: String::with_capacity(file.text.len()), starts: Vec::new() };
        for line in file.text.lines() {
            let line = line.trim();
            let line = match line.strip_prefix("//") {
                Some(comment) => comment.trim_start_matches(['/', '!']).trim_start(),
                None => line,
            };
            prose.starts.push(prose.text.len());
            prose.text.push_str(line);
            prose.text.push(' ');
        }
        prose
    }

    fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at) - 1
    }
}

/// The lines of a document with their indices, without blocks of code.
fn text_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().enumerate().filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// A line without its spans of code.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

fn headings(text: &str) -> Vec<String> {
    let heading = |(_, line): (usize, &str)| {
        let text = line.trim_start_matches('#');
        (text.len() < line.len() && text.starts_with(' ')).then(|| text.trim().to_owned())
    };
    text_lines(text).filter_map(heading).collect()
}

/// A heading's anchor, as hosts of repositories make it.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// A relative path from a document's own folder, from the root.
fn resolve(document: &str, path: &str) -> String {
    let mut parts: Vec<&str> = document.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

mod rules {
    use super::*;

    fn docs() -> Docs {
        let page = |path: &str, text: &str| File {
            path: path.into(),
            text: text.into(),
            code: String::new(),
        };
        let documents = [
            page(&format!("{PROTOCOL}wire.md"), "# Wire\n\n## Port switcher\n```\n# code\n```\n"),
            page("docs/limits.md", "# Limits\n\n### A turn's end: `x_max`\n"),
        ];
        let files = [
            format!("{PROTOCOL}wire.md"),
            "docs/limits.md".into(),
            "src/wire/mod.rs".into(),
            "LICENSE".into(),
        ];
        Docs::new(&documents, move |path| files.iter().any(|file| file == path))
    }

    fn found(rule: fn(&File, &Docs) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        rule(&File::new(path, text), &docs()).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_citation_of_no_page_or_no_heading_is_found() {
        let wire = format!("{PROTOCOL}wire.md");
        for good in [
            format!("//! Ports ({wire}, \"Port switcher\")."),
            format!("/// Ports ({wire}, \"Port\n/// switcher\"), and more."),
            format!("    // Both: {wire}, \"Wire\" and \"Port switcher\", A1."),
            format!("See `{wire}`, \"Wire\", or {wire}."),
            format!("All of {PROTOCOL}."),
        ] {
            assert_eq!(found(citations, "src/a.rs", &good), [0; 0], "{good}");
        }
        for bad in [
            format!("\n/// Ports ({PROTOCOL}wires.md, \"Wire\")."),
            format!("\n/// Ports ({wire}, \"Ports\")."),
            format!("\n/// Ports ({wire}, \"Wire\",\n/// \"Ports\")."),
            format!("\n    // Ports ({wire},\n    // \"code\")."),
        ] {
            assert_eq!(found(citations, "src/a.rs", &bad), [2], "{bad}");
        }
    }

    #[test]
    fn the_old_names_are_found() {
        let found = |text: &str| -> Vec<usize> {
            old_names(&File::new("src/a.rs", text)).iter().map(|finding| finding.line).collect()
        };
        for name in OLD_NAMES {
            let (first, second) = name.split_once(' ').unwrap();
            assert_eq!(found(&format!("\n/// Bytes ({name}, \"Payload\").")), [2]);
            assert_eq!(found(&format!("/// Bytes.\n//! More ({first}\n//! {second}).")), [2]);
            assert_eq!(found(&format!("/// {name} as text, (the {name})")), [0; 0]);
        }
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let good = "[a](limits.md), [b](../LICENSE) and [c](limits.md#a-turns-end-x_max)\n\
            [d](https://example.org/a.md) [e](#here) `[f](none.md)` [g](../src/wire/mod.rs#L1)\n\
            ```\n[h](none.md)\n```\n\n[i]: ../docs/protocol/wire.md\n";
        // Its own headings are not known, as it is no document here.
        let good = good.replace("[e](#here)", "[e](limits.md#limits)");
        assert_eq!(found(links, "docs/a.md", &good), [0; 0]);
        for bad in ["[a](none.md)", "[a](limits.md#ends)", "[a]: none.md", "x [a](../limits.md) y"]
        {
            assert_eq!(found(links, "docs/a.md", &format!("\n{bad}\n")), [2], "{bad}");
        }
    }

    #[test]
    fn paths_of_code_that_are_not_there_are_found() {
        let good = "`src/wire/mod.rs`, `src/*.rs`, `tests/a b`, `app/a.js`, src/none.rs";
        assert_eq!(found(code_paths, "docs/a.md", good), [0; 0]);
        assert_eq!(found(code_paths, "docs/a.md", "\nIn `src/wire.rs`.\n"), [2]);
    }

    #[test]
    fn former_words_are_found_and_longer_ones_are_not() {
        for (head, tail) in FORMER_WORDS {
            for text in [format!("let {head}{tail} = 1;"), format!("// Two {head}{tail}s.")] {
                assert_eq!(former_words(&File::new("src/a.rs", &text)).len(), 1, "{text}");
            }
            let longer = format!("a{head}{tail} {head}{tail}ed");
            assert!(former_words(&File::new("src/a.rs", &longer)).is_empty(), "{longer}");
        }
    }

    #[test]
    fn a_doc_comment_that_puts_its_subject_last_is_found() {
        let found = |text: &str| -> Vec<usize> {
            first_words(&File::new("src/a.rs", text)).iter().map(|finding| finding.line).collect()
        };
        for word in SUBJECT_LAST {
            assert_eq!(found(&format!("\n/// {word} it is.")), [2]);
            assert_eq!(found(&format!("//! {word}, then.\n\n    /// {word}.")), [1, 3]);
            let good = format!("/// A thing.\n/// {word} it is.\n// {word}\n/// {word}ever.");
            assert_eq!(found(&good), [0; 0]);
        }
    }
}

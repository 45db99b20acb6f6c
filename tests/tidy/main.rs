//! Checks the text of the repository itself: what `rustfmt` and `clippy` do not know about this
//! project. A finding names file and line and says what to do.
//!
//! Each rule is a function from one file to its findings, with a test that shows a text it refuses.

mod circles;
mod docs;
mod examples;
mod features;
mod shard;
mod source;

use std::{fmt, fs, path::Path};

/// The parts of the crate; one may use only what stands before it. `wire` comes first because
/// `limits` bounds a package by what its header can say, `metrics` before `forward` because mail
/// carries counters, `client` behind `route` as it uses the protocol alone, and `error` after
/// `route` because it hands on that one's errors. `pitaya` and `pomelo` are ends of lanes, as
/// workers are, and know nothing of shards. `io` comes after `shard`, whose word for a socket it
/// takes; `load` and `engine` stand on it beside each other.
const MODULE_ORDER: [&str; 29] = [
    "test_cases",
    "sync",
    "log",
    "files",
    "wire",
    "limits",
    "metrics",
    "route",
    "client",
    "error",
    "tls",
    "session",
    "record",
    "span",
    "dispatch",
    "forward",
    "pitaya",
    "pomelo",
    "wheel",
    "shard",
    "simulated",
    "internals",
    "io",
    "load",
    "engine",
    "traces",
    "testing",
    "admin",
    "cli",
];
/// Where the repository's own code is.
const FOLDERS: [&str; 6] = ["src", "tests", "benches", "examples", "fuzz/src", "fuzz/fuzz_targets"];
/// The only places with the runtime, the ring and unsafe code. Benches stand a bare ring beside
/// them, examples use the runtime as an embedder may, one test does, and one plants a race.
const SHELL_FOLDERS: [&str; 7] = [
    "src/io/",
    "src/load/",
    "src/engine/",
    "benches/",
    "examples/",
    "tests/it/runtime.rs",
    "tests/it/race.rs",
];
/// Of those, the ones that know nothing of the runtime.
const RING_FOLDERS: [&str; 2] = ["src/io/", "src/load/"];
const COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 800;

#[test]
fn the_repository_is_tidy() {
    let rules = [
        columns,
        function_length,
        file_length,
        shell_only,
        left_overs,
        ignored_tests,
        module_order,
        docs::old_names,
        docs::former_words,
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(root, folder, &mut files);
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.len() > 50, "only {} files were found", files.len());
    let mut findings: Vec<Finding> =
        files.iter().flat_map(|file| rules.iter().flat_map(|rule| rule(file))).collect();
    for path in ["Cargo.toml", "fuzz/Cargo.toml"] {
        let text = fs::read_to_string(root.join(path)).expect("a manifest can be read");
        findings.extend(dependencies_sorted(&File {
            path: path.into(),
            code: String::new(),
            text,
        }));
    }
    findings.extend(findings_of_documents(root, &files));
    findings.extend(circles::circles(&files));
    findings.extend(shard::size(&files));
    findings.extend(examples::missing(&files));
    let report: String = findings.iter().map(|finding| format!("\n{finding}")).collect();
    assert!(findings.is_empty(), "{} findings:{report}", findings.len());
}

/// What is wrong with documents, and with what cites them.
fn findings_of_documents(root: &'static Path, files: &[File]) -> Vec<Finding> {
    let folders: Vec<&str> = FOLDERS.into_iter().chain(["docs"]).collect();
    let documents = docs::collect(root, &folders);
    assert!(documents.len() > 10, "only {} documents were found", documents.len());
    let known = docs::Docs::new(&documents, move |path| root.join(path).exists());
    let of_documents = documents.iter().flat_map(|file| {
        [docs::links(file, &known), docs::code_paths(file, &known)].into_iter().flatten()
    });
    let of_all = files.iter().chain(&documents).flat_map(|file| docs::citations(file, &known));
    // This test itself names some that are not there.
    let others = files.iter().filter(|file| !file.path.starts_with("tests/tidy/"));
    let of_comments = others.flat_map(|file| docs::code_paths(file, &known));
    of_documents.chain(of_all).chain(of_comments).collect()
}

/// One file, as written and as [`code_of`] sees it.
struct File {
    /// From the root of the repository, with `/`.
    path: String,
    text: String,
    /// INVARIANT: as many lines as `text`.
    code: String,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into(), code: code_of(text) }
    }

    fn finding(&self, line_index: usize, advice: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line: line_index + 1, advice: advice.into() }
    }

    /// Every line with its index, as written and as code.
    fn lines(&self) -> impl Iterator<Item = (usize, &str, &str)> {
        self.text
            .lines()
            .zip(self.code.lines())
            .enumerate()
            .map(|(at, (text, code))| (at, text, code))
    }
}

#[derive(Debug)]
struct Finding {
    path: String,
    line: usize,
    advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.advice)
    }
}

/// A line is at most [`COLUMNS_MAX`] wide, unless there is nothing on it but one literal, which has
/// no place to be cut.
fn columns(file: &File) -> Vec<Finding> {
    let is_one_literal = |text: &str, code: &str| {
        let literal = code.trim().trim_start_matches(['b', 'r', '#']);
        !text.trim_start().starts_with("//")
            && literal.chars().all(|character| " \"#,;)".contains(character))
    };
    file.lines()
        .filter(|(_, text, code)| text.chars().count() > COLUMNS_MAX && !is_one_literal(text, code))
        .map(|(at, text, _)| {
            let width = text.chars().count();
            file.finding(at, format!("{width} columns: wrap the line at {COLUMNS_MAX}"))
        })
        .collect()
}

/// A function fits on a screen. The code is formatted, so a function ends at the first closing
/// brace in its own column.
fn function_length(file: &File) -> Vec<Finding> {
    let lines: Vec<&str> = file.code.lines().collect();
    let mut findings = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        if !is_function(line) || line.ends_with(['}', ';']) {
            continue;
        }
        let indent = indent(line);
        let ends_here =
            |line: &&str| indent_is(line, indent) && (line.trim() == "}" || line.ends_with(';'));
        let Some(len) = lines[start + 1..].iter().position(ends_here) else { continue };
        let len = len + 2;
        if len > FUNCTION_LINES_MAX {
            let advice = format!(
                "a function of {len} lines: move helpers that compute and return out of it, \
                 to at most {FUNCTION_LINES_MAX}"
            );
            findings.push(file.finding(start, advice));
        }
    }
    findings
}

/// One idea per file.
fn file_length(file: &File) -> Vec<Finding> {
    let len = file.text.lines().count();
    if len <= FILE_LINES_MAX {
        return Vec::new();
    }
    let advice = format!("{len} lines: split the file along a noun, {FILE_LINES_MAX} at most");
    vec![file.finding(len - 1, advice)]
}

/// The runtime, the ring and unsafe code stay in the shell.
fn shell_only(file: &File) -> Vec<Finding> {
    let is_in = |folders: &[&str]| folders.iter().any(|folder| file.path.starts_with(folder));
    let mut findings = Vec::new();
    for (at, _, code) in file.lines() {
        for word in words(code).filter(|word| matches!(*word, "glommio" | "io_uring" | "unsafe")) {
            if !is_in(&SHELL_FOLDERS) {
                findings.push(file.finding(at, format!("`{word}` belongs under src/engine/")));
            } else if word == "glommio" && is_in(&RING_FOLDERS) {
                findings.push(file.finding(at, "the runtime belongs under src/engine/"));
            }
        }
    }
    findings
}

/// Nothing that was meant for later, or for the author alone, is left.
fn left_overs(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, text, code) in file.lines() {
        for name in ["dbg", "todo", "unimplemented"] {
            if code.split(&format!("{name}!")).skip(1).any(|rest| rest.starts_with(['(', '[', '{']))
            {
                findings.push(file.finding(at, format!("`{name}!` is left over: remove it")));
            }
        }
        for mark in [concat!("FIX", "ME"), concat!("XX", "X")] {
            if words(text).any(|word| word == mark) {
                findings
                    .push(file.finding(at, format!("{mark}: do it, or write it down elsewhere")));
            }
        }
    }
    findings
}

/// A test that does not run says why.
fn ignored_tests(file: &File) -> Vec<Finding> {
    file.lines()
        .filter(|(_, _, code)| code.trim() == "#[ignore]")
        .map(|(at, _, _)| {
            file.finding(at, "an ignored test without a reason: `#[ignore = \"why\"]`")
        })
        .collect()
}

/// A part of the crate uses only what stands before it in [`MODULE_ORDER`]. Unit tests may reach
/// further.
fn module_order(file: &File) -> Vec<Finding> {
    let Some(module) = module_of(&file.path) else { return Vec::new() };
    let Some(place) = MODULE_ORDER.iter().position(|&name| name == module) else {
        return vec![file.finding(0, format!("give `{module}` its place in MODULE_ORDER"))];
    };
    let code = without_tests(&file.code);
    let mut findings = Vec::new();
    for (start, used) in crate_paths(&code) {
        let at = code[..start].matches('\n').count();
        match MODULE_ORDER.iter().position(|&name| name == used) {
            Some(used_place) if used_place <= place => {}
            Some(_) => {
                let advice = format!("`{module}` must not use `{used}`: see MODULE_ORDER");
                findings.push(file.finding(at, advice));
            }
            None => {
                let advice = format!("`crate::{used}`: name it in its own module");
                findings.push(file.finding(at, advice));
            }
        }
    }
    findings
}

/// Dependencies are sorted, so that one is found and two are not added. An empty line starts a new
/// group.
fn dependencies_sorted(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut inside = false;
    let mut last = "";
    for (at, line) in file.text.lines().enumerate() {
        if line.starts_with('[') {
            inside = line.trim_end_matches(']').ends_with("dependencies");
            last = "";
        } else if line.is_empty() {
            last = "";
        } else if let Some((name, _)) = line.split_once([' ', '=', '.']).filter(|_| inside)
            && !line.starts_with([' ', '#', ']', '}'])
        {
            if name < last {
                findings.push(file.finding(at, format!("move `{name}` in front of `{last}`")));
            }
            last = name;
        }
    }
    findings
}

/// `text` with the content of comments and literals blanked, line by line the same. What a rule
/// looks for in it is code.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let before = code.chars().next_back();
        let len = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => string_len(rest),
            'r' if !before.is_some_and(is_word) || before == Some('b') => raw_string_len(rest),
            '\'' => character_len(rest),
            _ => 0,
        };
        if len == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (literal, tail) = rest.split_at(len);
        let is_comment = first == '/';
        let last = literal.len() - 1;
        for (at, character) in literal.char_indices() {
            let keep = character == '\n' || !is_comment && (at == 0 || at == last);
            code.push(if keep { character } else { ' ' });
        }
        rest = tail;
    }
    code
}

/// The length of the string that `rest` starts with.
fn string_len(rest: &str) -> usize {
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            '"' if !escaped => return at + 1,
            _ => escaped = character == '\\' && !escaped,
        }
    }
    rest.len()
}

/// The length of the raw string that `rest` starts with, 0 if it starts with something else.
fn raw_string_len(rest: &str) -> usize {
    let hashes = rest[1..].chars().take_while(|&character| character == '#').count();
    let quote = 1 + hashes;
    if !rest[quote..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = &rest[quote + 1..];
    body.find(&end).map_or(rest.len(), |at| quote + 1 + at + end.len())
}

/// The length of the character that `rest` starts with, 0 if it is a lifetime.
fn character_len(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => rest[3..].find('\'').map_or(0, |at| 3 + at + 1),
        _ => characters.next().filter(|&(_, end)| end == '\'').map_or(0, |(at, _)| at + 1),
    }
}

/// `code` with unit test modules blanked, line by line the same.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut end: Option<String> = None;
    for line in code.lines() {
        if end.is_none() && line.trim() == "#[cfg(test)]" {
            end = Some(format!("{}}}", " ".repeat(indent(line))));
        }
        match &end {
            Some(last)
                if line == last || line.trim_start().starts_with("mod ") && line.ends_with(';') =>
            {
                end = None;
            }
            Some(_) => {}
            None => kept.push_str(line),
        }
        kept.push('\n');
    }
    kept
}

/// The first name of every path that starts at the crate, and where it stands; of a list in
/// braces, each.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    const PREFIX: &str = "crate::";
    let mut paths = Vec::new();
    for (at, _) in code.match_indices(PREFIX) {
        let rest = &code[at + PREFIX.len()..];
        if code[..at].chars().next_back().is_some_and(|before| is_word(before) || before == '$') {
            continue;
        }
        match rest.strip_prefix('{') {
            None => paths.extend(words(rest).next().map(|name| (at, name.to_owned()))),
            Some(list) => {
                let names = top_level_names(list);
                paths.extend(names.into_iter().map(|name| (at, name)));
            }
        }
    }
    paths
}

/// The first word of each item of `list`, which ends at its closing brace.
fn top_level_names(list: &str) -> Vec<String> {
    let mut depth = 0;
    let mut items = vec![String::new()];
    for character in list.chars() {
        match character {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(String::new()),
            _ => items.last_mut().expect("one from the start").push(character),
        }
    }
    items.iter().filter_map(|item| words(item).next().map(str::to_owned)).collect()
}

/// The part of the crate a file belongs to, `None` for the two roots and for what is no part.
fn module_of(path: &str) -> Option<&str> {
    let path = path.strip_prefix("src/")?;
    let module = path.split('/').next()?.trim_end_matches(".rs");
    (!matches!(module, "lib" | "main")).then_some(module)
}

/// True if a function is declared on this line, after what may stand in front of `fn`.
fn is_function(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.starts_with("pub")
            || word.ends_with(')')
            || matches!(*word, "const" | "async" | "unsafe" | "extern" | "\"")
    });
    words.next() == Some("fn")
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn indent_is(line: &str, expected: usize) -> bool {
    !line.trim().is_empty() && indent(line) == expected
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character| !is_word(character)).filter(|word| !word.is_empty())
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn collect(root: &Path, folder: &str, files: &mut Vec<File>) {
    // Benches and examples may not be there.
    let Ok(entries) = fs::read_dir(root.join(folder)) else { return };
    for entry in entries {
        let entry = entry.expect("the folder can be read");
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            collect(root, &path, files);
        } else if path.ends_with(".rs") {
            let text = fs::read_to_string(entry.path()).expect("a source file is UTF-8");
            files.push(File::new(&path, &text));
        }
    }
}

mod rules {
    use super::*;

    /// The lines that `rule` finds in `text`.
    fn found(rule: fn(&File) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        rule(&File::new(path, text)).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn long_lines_are_found_and_a_lone_literal_is_spared() {
        let long = "x".repeat(COLUMNS_MAX);
        assert_eq!(found(columns, "src/a.rs", &format!("{long}\n{long}x\n")), [2]);
        assert_eq!(found(columns, "src/a.rs", &format!("// {long}")), [1]);
        assert_eq!(found(columns, "src/a.rs", &format!("let a = \"{long}\";")), [1]);
        assert!(
            found(columns, "src/a.rs", &format!("    \"{long}\",\n r#\"{long}\"#;")).is_empty()
        );
        assert!(found(columns, "src/a.rs", &format!("f(r#\"\n{long}{long}\n\"#);")).is_empty());
        assert!(found(columns, "src/a.rs", &"é".repeat(COLUMNS_MAX)).is_empty());
    }

    #[test]
    fn long_functions_are_found_at_any_depth() {
        let body = |lines: usize| "    1;\n".repeat(lines);
        let fits = format!("fn a() {{\n{}}}\n", body(FUNCTION_LINES_MAX - 2));
        assert!(found(function_length, "src/a.rs", &fits).is_empty());
        for head in [
            "fn a() {",
            "pub fn a() {",
            "pub(crate) const fn a() {",
            "async fn a(\n) -> A {",
            "pub(in super::b) unsafe extern \"C\" fn a() {",
        ] {
            let long = format!("\n{head}\n{}}}\n", body(FUNCTION_LINES_MAX - 1));
            assert_eq!(found(function_length, "src/a.rs", &long), [2], "{head}");
        }
        let nested = body(FUNCTION_LINES_MAX).replace("    ", "        ");
        let nested = format!("impl A {{\n    fn a(\n    ) {{\n{nested}    }}\n}}\n");
        assert_eq!(found(function_length, "src/a.rs", &nested), [2]);
        let declared = format!("trait A {{\n    fn a(\n    );\n{}}}", body(FUNCTION_LINES_MAX));
        assert!(found(function_length, "src/a.rs", &declared).is_empty());
    }

    #[test]
    fn long_files_are_found() {
        assert!(found(file_length, "src/a.rs", &"\n".repeat(FILE_LINES_MAX)).is_empty());
        assert_eq!(found(file_length, "src/a.rs", &"\n".repeat(FILE_LINES_MAX + 1)), [801]);
    }

    #[test]
    fn the_runtime_and_unsafe_code_are_found_outside_the_engine() {
        for text in ["use glommio::Task;", "io_uring::squeue::Entry", "unsafe { a() }"] {
            assert_eq!(found(shell_only, "src/shard.rs", text), [1], "{text}");
            assert!(found(shell_only, "src/engine/start.rs", text).is_empty());
        }
        assert_eq!(found(shell_only, "src/io/ring.rs", "use glommio::Task;"), [1]);
        assert!(found(shell_only, "src/io/ring.rs", "unsafe { io_uring::a() }").is_empty());
        let talk = "// unsafe, glommio::Task\nlet a = \"unsafe\";\nlet unsafe_code = 1;";
        assert!(found(shell_only, "src/shard.rs", talk).is_empty());
    }

    #[test]
    fn left_overs_are_found() {
        for name in ["dbg", "todo", "unimplemented"] {
            assert_eq!(found(left_overs, "src/a.rs", &format!("\n{name}!(a);")), [2]);
            assert!(
                found(left_overs, "src/a.rs", &format!("// {name}!\nlet a = {name};")).is_empty()
            );
        }
        for mark in [concat!("FIX", "ME"), concat!("XX", "X")] {
            assert_eq!(found(left_overs, "src/a.rs", &format!("// {mark}: later")), [1]);
        }
    }

    #[test]
    fn an_ignored_test_needs_a_reason() {
        assert_eq!(found(ignored_tests, "src/a.rs", concat!("#[test]\n#[", "ignore]")), [2]);
        assert!(found(ignored_tests, "src/a.rs", "#[ignore = \"needs a network\"]").is_empty());
    }

    #[test]
    fn a_module_that_reaches_down_the_order_is_found() {
        for text in [
            "\nuse crate::shard::Shard;",
            "\nuse crate::{limits::Limits, engine};",
            "\nlet a = crate::forward::Mail;",
            "\nuse crate::Unknown;",
        ] {
            assert_eq!(found(module_order, "src/session/mod.rs", text), [2], "{text}");
        }
        for text in [
            "use crate::session::Slot;\nuse crate::{limits::Limits, wire::{package, message}};",
            "/// See [`crate::shard::Shard`].\n",
            "#[cfg(test)]\nmod tests {\n    use crate::shard::Shard;\n}\n",
        ] {
            assert!(found(module_order, "src/session/uid.rs", text).is_empty(), "{text}");
        }
        let after = "#[cfg(test)]\nmod tests {\n}\nuse crate::shard::Shard;";
        assert_eq!(found(module_order, "src/session/uid.rs", after), [4]);
        assert_eq!(found(module_order, "src/novel.rs", ""), [1]);
        assert!(found(module_order, "src/lib.rs", "use crate::shard::Shard;").is_empty());
    }

    #[test]
    fn dependencies_out_of_order_are_found() {
        let text = "[features]\nb = 1\na = 1\n[dependencies]\nb = \"1\"\na.path = \".\"\n\na = 1\n";
        assert_eq!(found(dependencies_sorted, "Cargo.toml", text), [6]);
        let text = "[dev-dependencies]\na = \"1\"\nb-a = { a = 1 }\n# c\nb-b = 1\n[lints]\na = 1";
        assert!(found(dependencies_sorted, "Cargo.toml", text).is_empty());
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        for (text, code) in [
            ("a // b\nc", "a     \nc"),
            ("\"a\\\"b\" c", "\"    \" c"),
            ("r#\"a\"b\"# c", "r      # c"),
            ("br\"a\" c", "br  \" c"),
            ("'a' '\\'' &'a b '\"'", "' ' '  ' &'a b ' '"),
            ("/* a\nb */c", "    \n    c"),
            ("for_r \"é\"", "for_r \" \""),
        ] {
            assert_eq!(code_of(text), code, "{text}");
        }
    }
}

//! A rule about the core's main type: it keeps the order of a turn, and leaves the rest to the
//! parts it is made of.

use super::{File, Finding, indent_is, without_tests};

/// As many files may hold an `impl Shard`.
const IMPL_FILES_MAX: usize = 3;
/// As many fields may `Shard` have.
const FIELDS_MAX: usize = 12;
const FOLDER: &str = "src/shard/";
const FILE: &str = "src/shard/mod.rs";

/// `Shard` is short: few files implement it, and it has few fields.
pub(super) fn size(files: &[File]) -> Vec<Finding> {
    findings(files, IMPL_FILES_MAX, FIELDS_MAX)
}

fn findings(files: &[File], impl_files_max: usize, fields_max: usize) -> Vec<Finding> {
    let implements = |file: &&File| {
        let code = without_tests(&file.code);
        let is_impl = code.lines().any(|line| line.starts_with("impl Shard {"));
        file.path.starts_with(FOLDER) && is_impl
    };
    let implementing: Vec<&File> = files.iter().filter(implements).collect();
    let file = files.iter().find(|file| file.path == FILE).expect("the core has its file");
    let (line, fields) = fields(file).expect("the file has the core's type");
    let mut findings = Vec::new();
    if implementing.len() > impl_files_max {
        let paths: Vec<&str> = implementing.iter().map(|file| file.path.as_str()).collect();
        let advice = format!(
            "{} files implement `Shard`, {impl_files_max} at most: let a part own what {} do",
            paths.len(),
            paths.join(", ")
        );
        findings.push(file.finding(line, advice));
    }
    if fields > fields_max {
        let advice =
            format!("`Shard` has {fields} fields: {fields_max} at most, move some to parts");
        findings.push(file.finding(line, advice));
    }
    findings
}

/// The line of the type's head, and the number of its fields.
fn fields(file: &File) -> Option<(usize, usize)> {
    let lines: Vec<&str> = file.code.lines().collect();
    let head = lines.iter().position(|line| line.ends_with("struct Shard {"))?;
    let body = lines[head + 1..].iter().take_while(|line| **line != "}");
    let is_field =
        |line: &&&str| indent_is(line, 4) && !line.trim().starts_with('#') && line.contains(": ");
    Some((head, body.filter(is_field).count()))
}

mod rules {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let file = |&(name, text): &(&str, &str)| File::new(&format!("{FOLDER}{name}"), text);
        let files: Vec<File> = files.iter().map(file).collect();
        findings(&files, 1, 2).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn more_fields_than_allowed_are_found() {
        let two = "struct Part {\n    a: u8,\n}\n\n/// It.\npub(crate) struct Shard {\n    \
            /// A: b.\n    a: u8,\n    #[cfg(feature = \"c: d\")]\n    pub(super) b: Vec<\n        \
            c::D,\n    >,\n}\n\nimpl Shard {\n    fn c(d: u8) {}\n}\n";
        assert!(found(&[("mod.rs", two)]).is_empty());
        let three = two.replace("    a: u8,\n", "    a: u8,\n\n    pub c: [u8; 4],\n");
        let found = found(&[("mod.rs", &three)]);
        assert_eq!(
            found,
            ["src/shard/mod.rs:8: `Shard` has 3 fields: 2 at most, move some to parts"]
        );
    }

    #[test]
    fn more_files_that_implement_it_than_allowed_are_found() {
        let main = ("mod.rs", "struct Shard {\n}\n");
        let other = ("b.rs", "impl ShardPart {\n}\n// impl Shard {\n");
        let test = ("c.rs", "#[cfg(test)]\nmod tests {\nimpl Shard {\n}\n}\n");
        let first = ("d.rs", "impl Shard {\n}\nimpl Shard {\n}\n");
        assert!(found(&[main, other, test, first]).is_empty());
        let found = found(&[main, first, ("e/f.rs", "impl Shard {\n}\n")]);
        assert_eq!(
            found,
            ["src/shard/mod.rs:1: 2 files implement `Shard`, 1 at most: let a part own what \
              src/shard/d.rs, src/shard/e/f.rs do"]
        );
    }
}

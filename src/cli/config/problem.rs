//! Problems of a configuration.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// A file's text and where it is from, and what the environment adds.
pub(super) struct Source {
    /// As the operator gave it.
    pub(super) name: String,
    /// The folder that the paths in it are relative to.
    pub(super) folder: PathBuf,
    /// The file's text, and behind it those of the variables, so that a place in it tells which of
    /// them it is of.
    pub(super) text: String,
    file_len: usize,
    pub(super) variables: Vec<Variable>,
    /// The folder with the credentials that the service manager hands over, if it does.
    pub(super) credentials: Option<PathBuf>,
}

/// A variable of the environment that sets a key.
pub(super) struct Variable {
    pub(super) name: String,
    /// The place of its value in the source's text.
    pub(super) range: Range<usize>,
}

impl Source {
    pub(super) fn new(name: String, folder: PathBuf, text: String) -> Self {
        let file_len = text.len();
        Self { name, folder, text, file_len, variables: Vec::new(), credentials: None }
    }

    /// Adds a variable of the environment.
    pub(super) fn add_variable(&mut self, name: String, value: &str) {
        // Apart from what is before it, as a value may be empty.
        self.text.push('\n');
        let start = self.text.len();
        self.text.push_str(value);
        self.variables.push(Variable { name, range: start..self.text.len() });
    }

    /// The text of the file alone.
    pub(super) fn file_text(&self) -> &str {
        &self.text[..self.file_len]
    }

    /// The variable that has a place in the text, if it is not the file that does.
    pub(super) fn variable_at(&self, at: usize) -> Option<&Variable> {
        let is_there = |range: &Range<usize>| range.start <= at && at <= range.end;
        self.variables.iter().find(|variable| is_there(&variable.range))
    }

    /// The name of the file or variable that a place is in; line and column where it is the file.
    pub(super) fn place(&self, at: usize) -> (String, Option<(usize, usize)>) {
        match self.variable_at(at) {
            Some(variable) => (variable.name.clone(), None),
            None => (self.name.clone(), Some(place(self.file_text(), at))),
        }
    }
}

/// Something that is wrong, where it is, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(super) file: String,
    /// Line and column, from 1.
    pub(super) place: Option<(usize, usize)>,
    /// Its path; empty where it is the whole file.
    pub(super) key: String,
    /// The value that was expected, and the one that was found.
    pub(super) text: String,
}

impl Problem {
    /// Of a file that could not be looked into.
    pub(super) fn of_file(file: &str, expected: &str, found: &str) -> Self {
        let text = format!("expected {expected}, found {found}");
        Self { file: file.to_owned(), place: None, key: String::new(), text }
    }

    /// Of a variable of the environment that is no key of the file.
    pub(super) fn of_variable(name: &str, text: &str) -> Self {
        Self { file: name.to_owned(), place: None, key: String::new(), text: text.to_owned() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, place, key, text } = self;
        f.write_str(file)?;
        if let Some((line, column)) = place {
            write!(f, ":{line}:{column}")?;
        }
        f.write_str(": ")?;
        if !key.is_empty() {
            write!(f, "{key}: ")?;
        }
        f.write_str(text)
    }
}

/// Line and column of a byte, from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

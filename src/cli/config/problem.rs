//! Problems of a configuration.

use std::fmt;
use std::path::PathBuf;

/// A file's text and where it is from.
pub(super) struct Source {
    /// As the operator gave it.
    pub(super) name: String,
    /// The folder that the paths in it are relative to.
    pub(super) folder: PathBuf,
    pub(super) text: String,
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
pub(super) fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

//! Values that stand elsewhere: `{ file = "/run/secrets/x" }` and `{ credential = "x" }`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use shaddock::{SECRET_BYTES_MAX, read_text_file};
use toml::de::DeValue;

use super::problem::Source;

/// The place in which a value stands instead of in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// A file, by a path that is relative to the configuration's own.
    File(PathBuf),
    /// A credential that the service manager hands to the process, by its name; see
    /// systemd.exec(5), "CREDENTIALS".
    Credential(String),
}

impl Elsewhere {
    /// The place that a value names, if it is a table that does.
    pub(super) fn of(value: &DeValue<'_>) -> Option<Self> {
        let table = value.as_table().filter(|table| table.len() == 1)?;
        let text = |key: &str| table.get(key)?.get_ref().as_str();
        match (text("file"), text("credential")) {
            (Some(path), _) => Some(Self::File(path.into())),
            (_, Some(name)) => Some(Self::Credential(name.to_owned())),
            _ => None,
        }
    }

    /// The file that holds the value.
    ///
    /// # Errors
    /// There are no credentials, or this can't be the name of one.
    pub(super) fn path(&self, source: &Source) -> io::Result<PathBuf> {
        let name = match self {
            Self::File(path) => return Ok(source.folder.join(path)),
            Self::Credential(name) => name,
        };
        if Path::new(name).file_name().is_none_or(|file| file != name.as_str()) {
            return Err(io::Error::other("a credential has the name of a file, without a folder"));
        }
        match &source.credentials {
            Some(folder) => Ok(folder.join(name)),
            None => Err(io::Error::other("there is no $CREDENTIALS_DIRECTORY")),
        }
    }

    /// The value, without the end of its line.
    ///
    /// # Errors
    /// The file can't be read, is no text, or is longer than any value.
    pub(super) fn read(&self, source: &Source) -> io::Result<String> {
        let mut text = read_text_file(self.path(source)?, SECRET_BYTES_MAX)?;
        let end = text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text));
        if let Some(end) = end.map(str::len) {
            text.truncate(end);
        }
        Ok(text)
    }
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Credential(name) => write!(f, "the credential {name}"),
        }
    }
}

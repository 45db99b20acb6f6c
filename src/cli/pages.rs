//! Completions for shells and man pages, made of the command line's own description.

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::options::Options;

/// Writes the completions of a shell to stdout.
pub(super) fn write_completions(shell: Shell) -> anyhow::Result<()> {
    io::stdout().write_all(&completions(shell)).context("can't write to stdout")
}

/// Writes the man pages of the program and of its commands into a folder.
pub(super) fn write_man(folder: &Path) -> anyhow::Result<()> {
    clap_mangen::generate_to(Options::command(), folder)
        .with_context(|| format!("can't write the man pages into {}", folder.display()))
}

fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Options::command(), "shaddock", &mut text);
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;

    const PACKAGING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging");

    fn files(folder: &Path) -> BTreeMap<String, String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let read = |path| fs::read_to_string(path).unwrap();
        let file =
            |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), read(entry.path()));
        entries.map(file).collect()
    }

    /// Packages carry the files that are committed.
    #[test]
    fn committed_completions_and_man_pages_are_those_of_the_command_line() {
        const ADVICE: &str = "write them anew: packaging/build pages";
        for (shell, name) in [
            (Shell::Bash, "shaddock.bash"),
            (Shell::Fish, "shaddock.fish"),
            (Shell::Zsh, "_shaddock"),
        ] {
            let path = format!("{PACKAGING}/completions/{name}");
            let committed = fs::read(&path).unwrap_or_default();
            assert!(committed == completions(shell), "{path} is old; {ADVICE}");
        }
        let folder = std::env::temp_dir().join(format!("shaddock-man-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        write_man(&folder).unwrap();
        let made = files(&folder);
        fs::remove_dir_all(&folder).unwrap();
        assert!(made.contains_key("shaddock-serve.1"));
        let committed = files(&Path::new(PACKAGING).join("man"));
        assert!(committed == made, "packaging/man is old; {ADVICE}");
    }
}

//! The instructions of each function and each line, read from what callgrind writes.

use std::collections::BTreeMap;
use std::path::Path;

/// A line of a file; of a function where the file is unknown.
type Place = (String, u32);

/// The instructions of a run.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    /// By function, with what is inlined into it.
    functions: BTreeMap<String, u64>,
    /// By the source, inlined or not.
    lines: BTreeMap<Place, u64>,
    /// The most executions of an instruction in each cache line of code, by its address.
    cache_lines: BTreeMap<u64, u64>,
    clock_reads: u64,
}

/// Bytes of a cache line.
const CACHE_LINE_BYTES: u64 = 64;

impl Profile {
    /// Reads a file that was written without compression. Names of files in `root` begin there.
    pub(crate) fn read(path: &Path, root: &Path) -> std::io::Result<Self> {
        let root = format!("{}/", root.display());
        let mut profile = Self::default();
        let (mut file, mut function, mut called) = (String::new(), "", "");
        // Behind `calls` comes a line of what the call has taken, which is counted where it was.
        let mut is_of_call = false;
        let text = std::fs::read_to_string(path)?;
        for line in text.lines() {
            if let Some((key, value)) = line.split_once('=') {
                match key {
                    "fl" | "fi" | "fe" => file = short(value, &root),
                    "fn" => function = value,
                    "cfn" => called = value,
                    "calls" => {
                        is_of_call = true;
                        if called.trim_start_matches('_').starts_with("clock_gettime") {
                            profile.clock_reads += number(value.split(' ').next());
                        }
                    }
                    _ => {}
                }
                continue;
            }
            if !line.starts_with(|first: char| first.is_ascii_digit())
                || std::mem::take(&mut is_of_call)
            {
                continue;
            }
            let mut words = line.split(' ');
            let address = words.next().and_then(|word| word.strip_prefix("0x"));
            let address = address.and_then(|word| u64::from_str_radix(word, 16).ok());
            let at = number(words.next()) as u32;
            let place = match file.as_str() {
                "???" => (format!("{function}, no source"), 0),
                _ => (file.clone(), at),
            };
            let count = number(words.next());
            *profile.lines.entry(place).or_default() += count;
            let cache_line = address.unwrap_or_default() / CACHE_LINE_BYTES;
            let most = profile.cache_lines.entry(cache_line).or_default();
            *most = count.max(*most);
            *profile.functions.entry(function.to_owned()).or_default() += count;
        }
        Ok(profile)
    }

    /// The instructions that were added since a shorter run.
    pub(crate) fn since(&self, shorter: &Self) -> Self {
        Self {
            functions: since(&self.functions, &shorter.functions),
            lines: since(&self.lines, &shorter.lines),
            cache_lines: since(&self.cache_lines, &shorter.cache_lines),
            clock_reads: self.clock_reads.saturating_sub(shorter.clock_reads),
        }
    }

    pub(crate) fn sum(&self) -> u64 {
        self.lines.values().sum()
    }

    /// True if there is a line of this repository's.
    pub(crate) fn has_lines(&self) -> bool {
        self.lines.keys().any(|(file, _)| file.starts_with("src/"))
    }

    /// The cache lines of code that were needed at least so many times.
    pub(crate) fn cache_lines(&self, times: u64) -> usize {
        self.cache_lines.values().filter(|most| **most >= times).count()
    }

    /// Calls of `clock_gettime`.
    pub(crate) fn clock_reads(&self) -> u64 {
        self.clock_reads
    }

    /// The instructions of each function, the most first.
    pub(crate) fn by_function(&self) -> Vec<(String, u64)> {
        sorted(self.functions.iter().map(|(name, count)| (format!("`{name}`"), *count)))
    }

    /// The instructions of each line, the most first.
    pub(crate) fn by_line(&self) -> Vec<(String, u64)> {
        sorted(self.lines.iter().map(|((file, line), count)| (format!("{file}:{line}"), *count)))
    }
}

fn since<K: Ord + Clone>(
    longer: &BTreeMap<K, u64>,
    shorter: &BTreeMap<K, u64>,
) -> BTreeMap<K, u64> {
    let before = |key| shorter.get(key).copied().unwrap_or(0);
    longer.iter().map(|(key, n)| (key.clone(), n.saturating_sub(before(key)))).collect()
}

fn number(word: Option<&str>) -> u64 {
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn sorted(rows: impl Iterator<Item = (String, u64)>) -> Vec<(String, u64)> {
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    rows
}

/// A file's name from the folder on that tells it: of this repository, a crate or the library.
fn short(name: &str, root: &str) -> String {
    let behind = |mark: &str| name.split_once(mark).map(|(_, rest)| rest);
    if let Some(own) = name.strip_prefix(root) {
        return own.to_owned();
    }
    let of_crate = behind("/registry/src/").and_then(|rest| rest.split_once('/'));
    let library = || behind("/library/").map(|rest| format!("std: {rest}"));
    of_crate.map(|(_, rest)| rest.to_owned()).or_else(library).unwrap_or_else(|| name.to_owned())
}

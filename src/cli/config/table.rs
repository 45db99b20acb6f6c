//! Reads a TOML table key by key, and notes what is wrong and which value each key has.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use shaddock::{read_text_file, redact_credentials};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::environment::overlay;
use super::kind::{Kind, TEXT};
use super::problem::{Problem, Source};
use super::secret::Elsewhere;

/// A value that a key has. Not to be printed whole, as it may be a secret.
#[derive(Clone)]
pub(super) struct Value {
    setting: Arc<dyn Setting>,
    pub(super) changes: Changes,
    /// Its place in the source, if it is there.
    span: Option<Range<usize>>,
    /// The place in which it stands instead, if the source names one.
    elsewhere: Option<Elsewhere>,
}

impl Value {
    /// True if the file or the environment has it; else it is a default.
    pub(super) fn is_in_file(&self) -> bool {
        self.span.is_some()
    }

    /// True if another file gives the key the same value.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.setting.is_as(&*other.setting)
    }

    /// True if it is this one.
    pub(super) fn is<T: Setting>(&self, setting: &T) -> bool {
        self.setting.is_as(setting)
    }

    /// The value as the program would write it.
    #[cfg(test)]
    pub(super) fn text(&self) -> String {
        format!("{:?}", self.setting)
    }
}

/// A value of any type that can be compared with another one, and shown.
pub(super) trait Setting: fmt::Debug + Any + Send + Sync {
    fn is_as(&self, other: &dyn Setting) -> bool;
}

impl<T: PartialEq + fmt::Debug + Any + Send + Sync> Setting for T {
    fn is_as(&self, other: &dyn Setting) -> bool {
        (other as &dyn Any).downcast_ref::<T>().is_some_and(|other| other == self)
    }
}

/// The value of a key that is not there and has no default.
#[derive(Debug, PartialEq)]
struct Unset;

/// A file that a key names, and what it holds.
#[derive(Debug, PartialEq)]
struct NamedFile {
    path: String,
    text: String,
}

/// The time from which another value of a key counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changes {
    Restart,
    /// The file is read again.
    Running,
}

/// All that is noted of one file.
#[derive(Default)]
struct Notes {
    values: BTreeMap<String, Value>,
    problems: Vec<(usize, Problem)>,
    /// The place where each table begins.
    tables: BTreeMap<String, Range<usize>>,
}

/// The keys of a table, with their places.
type Entries<'i> = BTreeMap<String, (Range<usize>, Spanned<DeValue<'i>>)>;

/// A table of the file, or one that is not there and has all its keys at their defaults.
pub(super) struct Table<'i> {
    source: &'i Source,
    notes: Rc<RefCell<Notes>>,
    /// Empty for the whole file.
    path: String,
    /// The keys that have not been read yet.
    entries: Entries<'i>,
    known: Vec<&'static str>,
    changes: Changes,
}

/// The most of the file that is shown as what was found there.
const FOUND_CHARS_MAX: usize = 40;
/// The least likeness to an unknown key with which a known one may be meant.
const LIKENESS_MIN: f64 = 0.8;

impl<'i> Table<'i> {
    /// The whole file, with what the environment sets.
    pub(super) fn root(source: &'i Source) -> Result<Self, Vec<Problem>> {
        let (table, errors) = DeTable::parse_recoverable(source.file_text());
        let problems = errors.iter().map(|error| Problem {
            file: source.name.clone(),
            place: error.span().and_then(|span| source.place(span.start).1),
            key: String::new(),
            text: error.message().to_owned(),
        });
        let problems: Vec<Problem> = problems.collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut table = table.into_inner();
        let misplaced = overlay(source, &mut table);
        let (entries, notes) = (entries(table), Rc::<RefCell<Notes>>::default());
        for (range, expected) in misplaced {
            let file = source.place(range.start).0;
            let text = format!("expected {expected}, found this name");
            let problem = Problem { file, place: None, key: String::new(), text };
            notes.borrow_mut().problems.push((range.start, problem));
        }
        let (path, known, changes) = (String::new(), Vec::new(), Changes::Restart);
        Ok(Self { source, notes, path, entries, known, changes })
    }

    /// The keys that are read from here on may change while the engine runs.
    pub(super) fn changes_while_running(&mut self) {
        self.changes = Changes::Running;
    }

    /// Reads a table in this one.
    pub(super) fn table<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Self) -> T) -> T {
        let path = self.path_of(name);
        let entries = match self.take(name) {
            None => BTreeMap::new(),
            Some((key, value)) => self.open(&path, key, value, "a table"),
        };
        self.read_table(path, entries, read)
    }

    /// Reads a table that may be there several times; one with nothing in it where there is none.
    pub(super) fn tables<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(&mut Self) -> T,
    ) -> Vec<T> {
        let path = self.path_of(name);
        let Some((key, value)) = self.take(name) else {
            return vec![self.read_table(format!("{path}[1]"), BTreeMap::new(), read)];
        };
        let expected = format!("tables, each headed [[{name}]]");
        let span = value.span();
        let DeValue::Array(tables) = value.into_inner() else {
            self.refuse_at(&path, span, &expected);
            return Vec::new();
        };
        self.notes.borrow_mut().tables.insert(path.clone(), key);
        let mut all = Vec::new();
        for (place, table) in (1..).zip(tables) {
            let path = format!("{path}[{place}]");
            let entries = self.open(&path, table.span(), table, &expected);
            all.push(self.read_table(path, entries, &mut read));
        }
        all
    }

    /// Reads a key, and leaves its default where it is not there.
    pub(super) fn read<T>(&mut self, key: &'static str, target: &mut T, kind: Kind<T>)
    where
        T: Setting + Clone,
    {
        let found = self.take(key);
        let understood = found.as_ref().map(|(_, value)| {
            self.understand(&self.path_of(key), value, kind.parse, kind.expected)
        });
        let (read, elsewhere) = understood.unwrap_or_default();
        if let Some(read) = read {
            *target = read;
        }
        self.note(key, Arc::new(target.clone()), found.map(|(_, value)| value.span()), elsewhere);
    }

    /// Reads a key that need not be there, and has no default.
    pub(super) fn read_some<T: Setting + Clone>(
        &mut self,
        key: &'static str,
        kind: Kind<T>,
    ) -> Option<T> {
        let (_, value) = self.take(key).unzip();
        let understood = value
            .as_ref()
            .map(|value| self.understand(&self.path_of(key), value, kind.parse, kind.expected));
        let (read, elsewhere) = understood.unwrap_or_default();
        let span = value.map(|value| value.span());
        match &read {
            Some(read) => self.note(key, Arc::new(read.clone()), span, elsewhere),
            None => self.note(key, Arc::new(Unset), span, elsewhere),
        }
        read
    }

    /// Reads a list, which is empty where it is not there.
    pub(super) fn read_list<T>(&mut self, key: &'static str, kind: Kind<T>) -> Vec<T>
    where
        T: PartialEq + fmt::Debug + Clone + Send + Sync + 'static,
    {
        let Some((_, value)) = self.take(key) else {
            self.note(key, Arc::<Vec<T>>::default(), None, None);
            return Vec::new();
        };
        let path = self.path_of(key);
        let (read, elsewhere) = if let Some(list) = value.get_ref().as_array() {
            let mut read = Vec::new();
            let mut elsewhere = None;
            for (place, value) in (1..).zip(list.iter()) {
                let path = format!("{path}[{place}]");
                let (element, of) = self.understand(&path, value, kind.parse, kind.expected);
                read.extend(element);
                elsewhere = elsewhere.or(of);
            }
            (read, elsewhere)
        } else {
            let parse = |value: &DeValue<'_>| {
                let elements = value.as_array()?.iter();
                elements.map(|element| (kind.parse)(element.get_ref())).collect::<Option<Vec<T>>>()
            };
            let expected = format!("a list, each of it {}", kind.expected);
            let (read, elsewhere) = self.understand(&path, &value, parse, &expected);
            (read.unwrap_or_default(), elsewhere)
        };
        self.note(key, Arc::new(read.clone()), Some(value.span()), elsewhere);
        read
    }

    /// Reads the file that a key names, by a path that is relative to the configuration's own.
    /// Another text in it counts as another value.
    pub(super) fn read_file(&mut self, key: &'static str, bytes_max: u64) -> Option<String> {
        let path = self.read_some(key, TEXT)?;
        match read_text_file(self.source.folder.join(&path), bytes_max) {
            Ok(text) => {
                let text = without_mark(text);
                if let Some(value) = self.notes.borrow_mut().values.get_mut(&self.path_of(key)) {
                    value.setting = Arc::new(NamedFile { path, text: text.clone() });
                }
                Some(text)
            }
            Err(error) => {
                self.refuse(key, "a file that can be read", Some(&error.to_string()));
                None
            }
        }
    }

    /// Reads a key that names a file, by a path that is relative to the configuration's own, or as
    /// a credential.
    pub(super) fn read_path(&mut self, key: &'static str) -> Option<PathBuf> {
        let (_, value) = self.take(key).unzip();
        let named = value.as_ref().and_then(|value| Elsewhere::of(value.get_ref()));
        let (Some(value), Some(named)) = (&value, named) else {
            // Put back for the usual way.
            if let Some(value) = value {
                self.entries.insert(key.to_owned(), (value.span(), value));
            }
            self.known.pop();
            return self.read_some(key, TEXT).map(|path| self.source.folder.join(path));
        };
        match named.path(self.source) {
            Ok(path) => {
                self.note(key, Arc::new(path.clone()), Some(value.span()), Some(named));
                Some(path)
            }
            Err(error) => {
                self.refuse_elsewhere(&self.path_of(key), value, "a file", &named, &error);
                None
            }
        }
    }

    /// Understands a value, or the one that it names. What is wrong with it is noted.
    fn understand<T>(
        &self,
        path: &str,
        value: &Spanned<DeValue<'i>>,
        parse: impl Fn(&DeValue<'_>) -> Option<T>,
        expected: &str,
    ) -> (Option<T>, Option<Elsewhere>) {
        let read = parse(value.get_ref());
        if read.is_some() {
            return (read, None);
        }
        if let Some(named) = Elsewhere::of(value.get_ref()) {
            let read = match named.read(self.source) {
                Ok(text) => parse_text(&text, parse),
                Err(error) => {
                    self.refuse_elsewhere(path, value, expected, &named, &error);
                    return (None, Some(named));
                }
            };
            if read.is_none() {
                let error = io::Error::other("what is there is something else, not shown here");
                self.refuse_elsewhere(path, value, expected, &named, &error);
            }
            return (read, Some(named));
        }
        let is_variable = self.source.variable_at(value.span().start).is_some();
        let text = value.get_ref().as_str().filter(|_| is_variable);
        let read = text.and_then(|text| parse_text(text, parse));
        if read.is_none() {
            self.refuse_at(path, value.span(), expected);
        }
        (read, None)
    }

    /// Notes that a value can't be had from where it stands.
    fn refuse_elsewhere(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        expected: &str,
        named: &Elsewhere,
        error: &io::Error,
    ) {
        let at = value.span().start;
        let (file, place) = self.source.place(at);
        let text = format!("expected {expected} in {named} ({error})");
        let problem = Problem { file, place, key: key.to_owned(), text };
        self.notes.borrow_mut().problems.push((at, problem));
    }

    /// A line for each key that is set: its value, unless it is a secret, and where it is from.
    pub(super) fn settings(&self, values: &BTreeMap<String, Value>) -> Vec<String> {
        let line = |(key, value): (&String, &Value)| {
            let span = value.span.clone()?;
            let from = match (self.source.place(span.start), &value.elsewhere) {
                (_, Some(elsewhere)) => return Some(format!("{key}: not shown, from {elsewhere}")),
                ((variable, None), None) => variable,
                ((file, Some((line, _))), None) => format!("{file}:{line}"),
            };
            Some(match is_secret(key) {
                true => format!("{key}: not shown, from {from}"),
                false => format!("{key} = {}, from {from}", self.found(span)),
            })
        };
        values.iter().filter_map(line).collect()
    }

    /// Notes that what a key says, or the whole table without one, can't be.
    pub(super) fn refuse(&mut self, key: &str, expected: &str, why: Option<&str>) {
        let key = if key.is_empty() { self.path.clone() } else { self.path_of(key) };
        // A value that could not be read is no value that is missing.
        if self.notes.borrow().problems.iter().any(|(_, problem)| problem.key == key) {
            return;
        }
        let value = self.notes.borrow().values.get(&key).cloned();
        let mut problem = self.problem_at(&key, &format!("expected {expected}"), value.as_ref());
        if let Some(why) = why {
            problem.text.push_str(&format!(" ({why})"));
        }
        let at = self.start_of(&key, value.as_ref());
        self.notes.borrow_mut().problems.push((at, problem));
    }

    /// Tells what is wrong with a key that has been read, or has its default.
    pub(super) fn problem_at(&self, key: &str, wanted: &str, value: Option<&Value>) -> Problem {
        let found = match value {
            Some(Value { span: Some(_), elsewhere, .. })
                if is_secret(key) || elsewhere.is_some() =>
            {
                "a value not shown here".to_owned()
            }
            Some(Value { span: Some(span), .. }) => self.found(span.clone()),
            Some(value) if !value.is(&Unset) => format!("its default, {:?}", value.setting),
            _ => "none".to_owned(),
        };
        let (file, place) = self.source.place(self.start_of(key, value));
        Problem { file, place, key: key.to_owned(), text: format!("{wanted}, found {found}") }
    }

    /// Notes the keys that nobody knows.
    pub(super) fn finish(&mut self) {
        for (name, (span, _)) in std::mem::take(&mut self.entries) {
            let likeness = |known: &&&str| strsim::jaro_winkler(known, &name);
            let nearest = self.known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
            let text = match nearest.filter(|known| likeness(known) >= LIKENESS_MIN) {
                Some(nearest) => format!("unknown key; `{nearest}` may be meant"),
                None => format!("unknown key; known here: {}", self.known.join(", ")),
            };
            let ((file, place), key) = (self.source.place(span.start), self.path_of(&name));
            let problem = Problem { file, place, key, text };
            self.notes.borrow_mut().problems.push((span.start, problem));
        }
    }

    /// Every key's value, and what is wrong, in the order of the lines.
    pub(super) fn take_notes(&self) -> (BTreeMap<String, Value>, Vec<Problem>) {
        let notes = &mut *self.notes.borrow_mut();
        notes.problems.sort_by_key(|(at, _)| *at);
        let problems = notes.problems.drain(..).map(|(_, problem)| problem);
        (notes.values.clone(), problems.collect())
    }

    fn read_table<T>(
        &self,
        path: String,
        entries: Entries<'i>,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let mut table = Self {
            source: self.source,
            notes: Rc::clone(&self.notes),
            path,
            entries,
            known: Vec::new(),
            changes: self.changes,
        };
        let result = read(&mut table);
        table.finish();
        result
    }

    fn open(
        &self,
        path: &str,
        head: Range<usize>,
        value: Spanned<DeValue<'i>>,
        expected: &str,
    ) -> Entries<'i> {
        let span = value.span();
        let DeValue::Table(table) = value.into_inner() else {
            self.refuse_at(path, span, expected);
            return BTreeMap::new();
        };
        self.notes.borrow_mut().tables.insert(path.to_owned(), head);
        entries(table)
    }

    fn take(&mut self, name: &'static str) -> Option<(Range<usize>, Spanned<DeValue<'i>>)> {
        self.known.push(name);
        self.entries.remove(name)
    }

    fn note(
        &self,
        key: &str,
        setting: Arc<dyn Setting>,
        span: Option<Range<usize>>,
        elsewhere: Option<Elsewhere>,
    ) {
        let value = Value { setting, changes: self.changes, span, elsewhere };
        self.notes.borrow_mut().values.insert(self.path_of(key), value);
    }

    fn refuse_at(&self, key: &str, span: Range<usize>, expected: &str) {
        let at = span.start;
        let (setting, changes, span) = (Arc::new(Unset), self.changes, Some(span));
        let value = Value { setting, changes, span, elsewhere: None };
        let problem = self.problem_at(key, &format!("expected {expected}"), Some(&value));
        self.notes.borrow_mut().problems.push((at, problem));
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The place of a key, or else of the table that it would be in.
    fn start_of(&self, key: &str, value: Option<&Value>) -> usize {
        if let Some(span) = value.and_then(|value| value.span.as_ref()) {
            return span.start;
        }
        let notes = self.notes.borrow();
        let table = key.rsplit_once('.').map_or(key, |(table, _)| table);
        let span = notes.tables.get(key).or_else(|| notes.tables.get(table));
        span.map_or(0, |span| span.start)
    }

    /// The first of what stands there, without logins: the problems of a file may go anywhere.
    fn found(&self, span: Range<usize>) -> String {
        let text = redact_credentials(self.source.text.get(span).unwrap_or_default());
        let line = text.lines().next().unwrap_or_default();
        let mut found: String = line.chars().take(FOUND_CHARS_MAX).collect();
        if found.len() < text.len() {
            found.push('…');
        }
        found
    }
}

/// The text without the byte order mark that editors on Windows put in front, which Node skips too.
pub(super) fn without_mark(mut text: String) -> String {
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    text
}

/// Understands a text that is not written as TOML, or is.
fn parse_text<T>(text: &str, parse: impl Fn(&DeValue<'_>) -> Option<T>) -> Option<T> {
    let as_it_is = parse(&DeValue::String(text.into()));
    as_it_is.or_else(|| DeValue::parse(text).ok().and_then(|value| parse(value.get_ref())))
}

/// True if a key's value is for nobody to see.
fn is_secret(key: &str) -> bool {
    key.ends_with("password") || key.ends_with("token")
}

fn entries(table: DeTable<'_>) -> Entries<'_> {
    let entry = |(key, value): (Spanned<DeString<'_>>, _)| {
        let span = key.span();
        (key.into_inner().into_owned(), (span, value))
    };
    table.into_iter().map(entry).collect()
}

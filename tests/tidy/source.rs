//! One file as a rule about names sees it: the names it defines, and those it uses.

use std::collections::BTreeSet;

use super::is_word;

/// A name's kind, as far as it decides how a use of it looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A type, a trait, a constant or a static: a word.
    Item,
    /// A function outside of types: `name(`, or at the end of a path.
    Free,
    /// A function of a type: `.name(`, or at the end of a path.
    Method,
    /// `name!`.
    Macro,
}

/// A file's tokens and the names it defines, without its unit tests.
pub(super) struct Source<'a> {
    pub(super) path: &'a str,
    /// The module that the file is, from the crate's root.
    pub(super) module: Vec<&'a str>,
    /// The names that other files may use.
    pub(super) defined: Vec<(&'a str, Kind)>,
    tokens: Vec<&'a str>,
    /// The places of words that are no uses: what declares a name.
    declares: BTreeSet<usize>,
}

/// One use of a name, by how it looks.
pub(super) struct Use<'a> {
    pub(super) name: &'a str,
    look: Look<'a>,
}

enum Look<'a> {
    /// In a `use`.
    Import,
    /// Behind a path that ends with a module of the folder.
    OfModule,
    /// Behind a type.
    OfType(&'a str),
    /// `self.name(`.
    CalledOnSelf,
    /// `.name(`, of whatever else.
    Called,
    /// A word of its own that an import may have brought, with what follows.
    Alone { is_called: bool },
    /// `name!`.
    Macro,
}

impl Use<'_> {
    /// Tells whether this can be a use of something of that kind. `is_defined` knows the folder's
    /// names.
    pub(super) fn fits(&self, kind: Kind, is_defined: &dyn Fn(&str) -> bool) -> bool {
        match self.look {
            Look::Import | Look::OfModule => true,
            // A type behind a type is a variant.
            Look::OfType(name) => {
                let is_here = name == "Self" || is_defined(name);
                is_here && (kind != Kind::Item || is_upper_case(self.name))
            }
            Look::CalledOnSelf | Look::Called => kind == Kind::Method,
            Look::Alone { is_called } => kind == Kind::Item || kind == Kind::Free && is_called,
            Look::Macro => kind == Kind::Macro,
        }
    }

    /// Tells whether it is a method of a type that the text does not name.
    pub(super) fn is_of_any_type(&self) -> bool {
        matches!(self.look, Look::Called)
    }
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &'a str, tokens: Vec<&'a str>) -> Self {
        let tokens = without_tests(&tokens);
        let Declared { names, places } = declared(&tokens);
        Self { path, module: module_path(path), defined: names, tokens, declares: places }
    }

    /// Every use of a name that may be one of the folder's. `is_inside` tells of a path, as it
    /// stands in this file, whether it leads to the folder.
    pub(super) fn uses(&self, is_inside: &dyn Fn(&[&str]) -> bool) -> Vec<Use<'a>> {
        let mut uses = Vec::new();
        let mut is_import = vec![false; self.tokens.len()];
        let mut others = BTreeSet::new();
        let mut exported = BTreeSet::new();
        for (at, _) in self.tokens.iter().enumerate().filter(|(_, token)| **token == "use") {
            let len = self.tokens[at..].iter().position(|token| *token == ";").unwrap_or(0);
            is_import[at..=at + len].fill(true);
            let is_exported = at > 0 && matches!(self.tokens[at - 1], "pub" | ")");
            for (path, name) in leaves(&self.tokens[at + 1..at + len]) {
                if !is_inside(&path) {
                    others.insert(name);
                } else if is_exported || name == "*" {
                    exported.insert(name);
                } else {
                    let leaf = path.len() - 1;
                    let names = path.into_iter().enumerate();
                    let names = names.filter(|(at, name)| *at == leaf || is_type(name));
                    uses.extend(names.map(|(_, name)| Use { name, look: Look::Import }));
                }
            }
        }
        for (at, name) in self.tokens.iter().enumerate() {
            let is_name = name.starts_with(is_word) && !self.declares.contains(&at);
            if is_name && !is_import[at] {
                // The import has told what it brought, unless it brought all or hands it on.
                let is_told = || !exported.contains(name) && !exported.contains("*");
                let look = self.look(at, &others, is_inside);
                let look = look.filter(|look| !matches!(look, Look::Alone { .. }) || !is_told());
                uses.extend(look.map(|look| Use { name, look }));
            }
        }
        uses
    }

    /// The look of the word at `at`, `None` if it is no name of the folder.
    fn look(
        &self,
        at: usize,
        others: &BTreeSet<&str>,
        is_inside: &dyn Fn(&[&str]) -> bool,
    ) -> Option<Look<'a>> {
        let token = |at: usize| self.tokens.get(at).copied().unwrap_or_default();
        let before = |distance: usize| at.checked_sub(distance).map_or("", token);
        let is_called = token(at + 1) == "(" || token(at + 1) == "::" && token(at + 2) == "<";
        if before(1) == "." {
            let is_of_self = before(2) == "self" && before(3) != ".";
            let look = if is_of_self { Look::CalledOnSelf } else { Look::Called };
            return is_called.then_some(look);
        }
        if before(1) != "::" {
            let is_macro = token(at + 1) == "!";
            let look = if is_macro { Look::Macro } else { Look::Alone { is_called } };
            return (!others.contains(token(at))).then_some(look);
        }
        // `<T as U>::name` and `T::<u8>::name` do not tell whose name it is.
        let mut path = Vec::new();
        while before(2 * path.len() + 1) == "::" && before(2 * path.len() + 2).starts_with(is_word)
        {
            path.push(before(2 * path.len() + 2));
        }
        path.reverse();
        let (first, last) = (*path.first()?, *path.last()?);
        let is_module = !is_type(first);
        if others.contains(first) || is_module && !is_inside(&path) {
            return None;
        }
        Some(if is_type(last) { Look::OfType(last) } else { Look::OfModule })
    }
}

fn is_type(name: &str) -> bool {
    name.starts_with(char::is_uppercase)
}

fn is_upper_case(name: &str) -> bool {
    !name.contains(char::is_lowercase)
}

/// The module that a file or a folder is.
pub(super) fn module_path(path: &str) -> Vec<&str> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    path.split('/').filter(|name| *name != "mod").collect()
}

/// `code` as words, `::`, lifetimes and single characters.
pub(super) fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = |text: &str| text.find(|c| !is_word(c)).unwrap_or(text.len());
        let len = match first {
            '\'' => 1 + word(&rest[1..]),
            ':' if rest.starts_with("::") => 2,
            _ => word(rest).max(first.len_utf8()),
        };
        tokens.push(&rest[..len]);
        rest = rest[len..].trim_start();
    }
    tokens
}

/// The modules that are there for tests alone, of a file that is `module`.
pub(super) fn test_modules<'a>(module: &[&'a str], tokens: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut modules = Vec::new();
    for at in 0..tokens.len() {
        let item = &tokens[at..];
        let len = test_item(item);
        let words = item[..len].windows(3).find(|words| words[0] == "mod" && words[2] == ";");
        modules.extend(words.map(|words| [module, &[words[1]]].concat()));
    }
    modules
}

fn without_tests<'a>(tokens: &[&'a str]) -> Vec<&'a str> {
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        match test_item(&tokens[at..]) {
            0 => {
                kept.push(tokens[at]);
                at += 1;
            }
            len => at += len,
        }
    }
    kept
}

/// The length of the item that begins here, if it is there for tests alone; else 0.
fn test_item(tokens: &[&str]) -> usize {
    let is_test = tokens.starts_with(&["#", "[", "cfg", "(", "test", ")"])
        || tokens.starts_with(&["#", "[", "cfg", "(", "all", "(", "test"]);
    if !is_test {
        return 0;
    }
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match *token {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            // The brace of what the item stands in.
            "}" if depth == 0 => return at,
            "}" if depth == 1 => return at + 1,
            "}" => depth -= 1,
            ";" | "," if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// The names of a `use`, each with its path, the name itself included; last what it is called here.
fn leaves<'a>(tree: &[&'a str]) -> Vec<(Vec<&'a str>, &'a str)> {
    let mut leaves = Vec::new();
    let mut path: Vec<&str> = Vec::new();
    let mut outer = Vec::new();
    let mut alias = None;
    for (at, token) in tree.iter().chain([&","]).enumerate() {
        match *token {
            "{" => outer.push(path.len()),
            "," | "}" => {
                let base = outer.last().copied().unwrap_or(0);
                if path.len() > base {
                    let name = alias.take().unwrap_or(path[path.len() - 1]);
                    leaves.push((path.clone(), name));
                }
                path.truncate(base);
                if *token == "}" {
                    outer.pop();
                    // The list has told its names.
                    path.truncate(outer.last().copied().unwrap_or(0));
                }
            }
            "::" | "as" => {}
            "self" if let Some(name) = path.last() => leaves.push((path.clone(), name)),
            name if at > 0 && tree[at - 1] == "as" => alias = Some(name),
            name => path.push(name),
        }
    }
    leaves
}

#[derive(Default)]
struct Declared<'a> {
    names: Vec<(&'a str, Kind)>,
    places: BTreeSet<usize>,
}

/// The content of a pair of braces, as far as it decides what is declared in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    /// Modules and whatever else holds items.
    Items,
    /// Methods of a type, or of a trait.
    Methods,
    /// Names that another trait gives.
    TraitMethods,
    Enum,
    /// A function's body, whose items no other file sees.
    Body,
}

fn declared<'a>(tokens: &[&'a str]) -> Declared<'a> {
    let mut declared = Declared::default();
    // Each open brace with the depth of other brackets in front of it.
    let mut blocks = vec![(Block::Items, 0)];
    let mut depth = 0;
    let mut next: Option<Block> = None;
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).map_or("", |at| tokens[at]);
        let after = tokens.get(at + 1).copied().unwrap_or_default();
        let &(block, outer_depth) = blocks.last().expect("the first is never taken");
        match *token {
            "(" | "[" => depth += 1,
            ")" | "]" => depth -= 1,
            "{" => {
                let inner = match (block, next.take()) {
                    (Block::Body, _) => Block::Body,
                    (_, inner) => inner.unwrap_or(Block::Items),
                };
                blocks.push((inner, depth));
                depth = 0;
            }
            "}" if blocks.len() > 1 => {
                blocks.pop();
                depth = outer_depth;
            }
            ";" if depth == 0 => next = None,
            "for" if after != "<" && next == Some(Block::Methods) => {
                next = Some(Block::TraitMethods);
            }
            "impl" | "trait" if next.is_none() => next = Some(Block::Methods),
            "enum" => next = Some(Block::Enum),
            "fn" if after.starts_with(is_word) => next = Some(Block::Body),
            _ => {}
        }
        let is_variant = block == Block::Enum && depth == 0 && matches!(before, "{" | "," | "]");
        if is_variant && token.starts_with(is_word) {
            declared.places.insert(at);
        } else if let Some(kind) = kind_after(tokens, at, block) {
            declared.places.insert(at);
            let is_seen = match block {
                Block::Items | Block::Enum => true,
                Block::Methods => *token != "_" && before != "type",
                Block::TraitMethods | Block::Body => false,
            };
            if let Some(kind) = kind.filter(|_| is_seen) {
                declared.names.push((token, kind));
            }
        }
    }
    declared
}

/// Of a word that is declared here, what it stands for; `Some(None)` for a module.
fn kind_after(tokens: &[&str], at: usize, block: Block) -> Option<Option<Kind>> {
    let before = |distance: usize| at.checked_sub(distance).map_or("", |at| tokens[at]);
    if !tokens[at].starts_with(is_word) {
        return None;
    }
    match before(1) {
        "mod" => Some(None),
        "fn" if block == Block::Items => Some(Some(Kind::Free)),
        "fn" => Some(Some(Kind::Method)),
        "struct" | "enum" | "union" | "trait" | "type" => Some(Some(Kind::Item)),
        "const" | "static" => {
            let is_pointer = before(2) == "*";
            let is_name = tokens.get(at + 1) == Some(&":") && tokens[at] != "_";
            (is_name && !is_pointer).then_some(Some(Kind::Item))
        }
        "mut" if before(2) == "static" => Some(Some(Kind::Item)),
        "!" if before(2) == "macro_rules" => Some(Some(Kind::Macro)),
        _ => None,
    }
}

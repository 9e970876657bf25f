//! Which module of a crate uses which, read from its source as text.
//!
//! An arrow runs from a file to each file whose items it names by a path. Tests are left out, and so are re-exports: a name
//! that a parent only hands on stands for the module that has it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A module path below the crate, for example `["memory", "arena"]`; the crate root is empty.
type Module = Vec<String>;

/// The modules of one crate and what they name.
pub struct Modules {
    sources: BTreeMap<Module, Source>,
}

/// One file, without comments, strings and tests.
struct Source {
    file: String,
    text: String,
    /// Names that the file hands on, with the paths that they stand for.
    exports: BTreeMap<String, Vec<String>>,
}

impl Modules {
    /// Reads the crate whose source lies in `folder`.
    pub fn read(folder: &Path) -> Self {
        let mut sources = BTreeMap::new();
        let root = ["lib.rs", "main.rs"].into_iter().find(|name| folder.join(name).exists()).unwrap();
        read_module(folder, &folder.join(root), Vec::new(), &mut sources);
        Self { sources }
    }

    /// Groups of files that use each other in a circle; empty where there is none.
    pub fn circles(&self) -> Vec<Vec<String>> {
        let arrows: BTreeMap<&Module, BTreeSet<Module>> =
            self.sources.keys().map(|module| (module, self.arrows(module))).collect();
        let reached = |from: &Module| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(module) = next.pop() {
                for to in arrows.get(&module).into_iter().flatten() {
                    if seen.insert(to.clone()) {
                        next.push(to.clone());
                    }
                }
            }
            seen
        };
        let reach: BTreeMap<&Module, BTreeSet<Module>> =
            arrows.keys().map(|module| (*module, reached(module))).collect();
        let mut circles = BTreeSet::new();
        for (module, ends) in &reach {
            let members = ends.iter().filter(|end| reach.get(end).is_some_and(|back| back.contains(*module)));
            let files: Vec<String> = members.map(|member| self.sources[member].file.clone()).collect();
            if files.len() > 1 {
                circles.insert(files);
            }
        }
        circles.into_iter().collect()
    }

    /// The modules that a module uses.
    fn arrows(&self, from: &Module) -> BTreeSet<Module> {
        let source = &self.sources[from];
        let mut used = BTreeSet::new();
        for path in paths(&source.text) {
            let absolute = match path[0].as_str() {
                "crate" => path[1..].to_vec(),
                "self" => [from.clone(), path[1..].to_vec()].concat(),
                "super" => {
                    let ups = path.iter().take_while(|segment| *segment == "super").count();
                    [from[..from.len().saturating_sub(ups)].to_vec(), path[ups..].to_vec()].concat()
                }
                // The name of a child, in the file that declares it.
                child if self.sources.contains_key(&[from.clone(), vec![child.to_owned()]].concat()) => {
                    [from.clone(), path.clone()].concat()
                }
                _ => continue,
            };
            used.extend(self.resolve(&absolute));
        }
        // A re-export is no use, unless the file names it again.
        for (name, path) in &source.exports {
            if words(&source.text).any(|word| word == name) {
                used.extend(self.resolve(path));
            }
        }
        used.remove(from);
        used
    }

    /// The module that has the item of a path.
    fn resolve(&self, path: &[String]) -> Option<Module> {
        let mut module: Module = Vec::new();
        for (place, segment) in path.iter().enumerate() {
            let child = [module.clone(), vec![segment.clone()]].concat();
            if self.sources.contains_key(&child) {
                module = child;
                continue;
            }
            return match self.sources.get(&module)?.exports.get(segment) {
                Some(stands_for) if stands_for.as_slice() != path => {
                    self.resolve(&[stands_for.clone(), path[place + 1..].to_vec()].concat())
                }
                _ => Some(module),
            };
        }
        // A module was named as a whole: what is used of it, its users name again.
        self.sources.contains_key(&module).then_some(module)
    }
}

fn read_module(folder: &Path, file: &Path, module: Module, sources: &mut BTreeMap<Module, Source>) {
    let whole = without_comments(&std::fs::read_to_string(file).unwrap());
    // Tests inside a file are its end.
    let begins_tests = |place: &usize| {
        let line = whole[*place..].lines().nth(1).unwrap_or_default();
        line.contains("mod tests") && line.ends_with('{')
    };
    let tests = whole.match_indices("#[cfg(test)]").map(|(place, _)| place).find(begins_tests);
    let text = whole[..tests.unwrap_or(whole.len())].to_owned();
    let mut kept = String::new();
    let mut exports = BTreeMap::new();
    let mut for_tests = false;
    let mut children = Vec::new();
    for statement in statements(&text) {
        let line = statement.trim();
        let bare = line.trim_start_matches("#[cfg(test)]").trim();
        for_tests |= bare.len() < line.len();
        let words: Vec<&str> = bare.split_whitespace().collect();
        let is_public = words.first().is_some_and(|word| word.starts_with("pub"));
        let after: &[&str] = if is_public && words.get(1).is_some() { &words[1..] } else { &words };
        match after {
            ["mod", name] if name.ends_with(';') && !for_tests => children.push(name.trim_end_matches(';').to_owned()),
            ["mod", name] if name.ends_with(';') => {}
            ["use", ..] if is_public => {
                for path in paths(bare) {
                    let absolute = match path[0].as_str() {
                        "crate" => path[1..].to_vec(),
                        "self" => [module.clone(), path[1..].to_vec()].concat(),
                        "super" => [module[..module.len().saturating_sub(1)].to_vec(), path[1..].to_vec()].concat(),
                        _ => [module.clone(), path.clone()].concat(),
                    };
                    exports.insert(path.last().unwrap().clone(), absolute);
                }
            }
            _ => kept.push_str(statement),
        }
        for_tests = false;
    }
    let file_name = file.strip_prefix(folder).unwrap().display().to_string();
    let base = module.iter().fold(folder.to_path_buf(), |folder, part| folder.join(part));
    sources.insert(module.clone(), Source { file: file_name, text: kept, exports });
    for child in children {
        let places = [base.join(format!("{child}.rs")), base.join(&child).join("mod.rs")];
        let place = places.into_iter().find(|place| place.exists());
        if let Some(place) = place {
            read_module(folder, &place, [module.clone(), vec![child]].concat(), sources);
        }
    }
}

/// The text cut behind each semicolon and closing brace at its outermost level; whatever is inside braces stays together.
fn statements(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0usize);
    for (place, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        let is_use = text[start..place].trim_start().contains("use ");
        if depth == 0 && (character == ';' || character == '}' && !is_use) {
            parts.push(&text[start..=place]);
            start = place + 1;
        }
    }
    parts.push(&text[start..]);
    parts
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !is_word(character)).filter(|word| !word.is_empty())
}

/// Every path of two segments or more, with the trees of `use` statements spelled out.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(place) = rest.find("::") {
        let start = rest[..place].rfind(|character| !is_word(character)).map_or(0, |before| before + 1);
        // A path that goes on from something else, as in `<T>::new` or `a.b::<C>()`, begins nowhere.
        let first = &rest[start..place];
        let mut end = place;
        if first.is_empty() {
            rest = &rest[place + 2..];
            continue;
        }
        tree(rest, &mut end, vec![first.to_owned()], &mut found);
        rest = &rest[end.max(place + 2)..];
    }
    found
}

/// Follows a path, or a tree of paths, from the `::` at `*at` on.
fn tree(text: &str, at: &mut usize, path: Vec<String>, found: &mut Vec<Vec<String>>) {
    let mut path = path;
    while text[*at..].starts_with("::") {
        *at += 2;
        if text[*at..].starts_with('{') {
            *at += 1;
            loop {
                *at += text[*at..].len() - text[*at..].trim_start_matches([' ', '\n', '\t', ',']).len();
                if text[*at..].starts_with('}') || *at >= text.len() {
                    *at = (*at + 1).min(text.len());
                    return;
                }
                let word = text[*at..].chars().take_while(|character| is_word(*character)).collect::<String>();
                if word.is_empty() {
                    *at = text.len().min(*at + text[*at..].chars().next().map_or(1, char::len_utf8));
                    continue;
                }
                *at += word.len();
                if word == "as" {
                    // The new name is no path.
                    *at += text[*at..].find([',', '}']).unwrap_or(0);
                    continue;
                }
                tree(text, at, [path.clone(), vec![word]].concat(), found);
            }
        }
        let word = text[*at..].chars().take_while(|character| is_word(*character)).collect::<String>();
        if word.is_empty() {
            break;
        }
        *at += word.len();
        path.push(word);
    }
    // The last segment of `use a::{self}` adds nothing.
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    found.push(path);
}

/// The text without comments and without what stands in quotes.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let mut quoted = false;
        let mut previous = ' ';
        for (place, character) in line.char_indices() {
            if !quoted && line[place..].starts_with("//") {
                break;
            }
            if character == '"' && previous != '\\' && previous != '\'' {
                quoted = !quoted;
                continue;
            }
            if !quoted {
                out.push(character);
            }
            previous = character;
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_of(files: &[(&str, &str)]) -> Modules {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Modules::read(folder.path())
    }

    #[test]
    fn a_circle_is_found_through_use_trees_supers_and_re_exports() {
        let circle = |files: &[(&str, &str)]| crate_of(files).circles();
        let root = ("lib.rs", "mod a;\nmod b;\npub use a::{A};\n");
        assert_eq!(
            circle(&[root, ("a.rs", "use crate::b::B;\npub struct A;\n"), ("b.rs", "pub struct B;\n")]),
            [[""; 0]; 0]
        );
        let closed = [["a.rs", "b.rs"]];
        assert_eq!(circle(&[root, ("a.rs", "use crate::b::B;\npub struct A;\n"), ("b.rs", "use crate::A;\n")]), closed);
        assert_eq!(
            circle(&[root, ("a.rs", "use crate::{b::{B, C}};\n"), ("b.rs", "fn f() { super::a::g() }\n")]),
            closed
        );
        // A parent that uses its child, and the child its parent.
        let files = [
            ("lib.rs", "mod a;\n"),
            ("a/mod.rs", "mod c;\nfn f() { c::g() }\nstruct S;\n"),
            ("a/c.rs", "use super::S;\n"),
        ];
        assert_eq!(circle(&files), [["a/mod.rs", "a/c.rs"]]);
    }

    #[test]
    fn tests_comments_strings_and_mere_re_exports_are_no_arrows() {
        let files = [
            ("lib.rs", "mod a;\nmod b;\npub use b::B;\n"),
            ("a.rs", "//! crate::b\nuse crate::b::B;\n"),
            ("b.rs", "// crate::a\nfn f() { \"crate::a::A\"; }\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n"),
        ];
        assert_eq!(crate_of(&files).circles(), [[""; 0]; 0]);
    }
}

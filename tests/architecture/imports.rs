//! What each module defines and imports, and the file that a path leads to.
//!
//! A path is followed as the compiler does: through modules, `use` and `pub use`, globs and aliases, to the module that
//! truly defines the item. `crate::media::Input`, which `media/mod.rs` re-exports, leads to the file with `struct Input`.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{File, Kind, Token, close_of, code_without_tests, test_modules, tokens};

/// Names from the crate inwards: `["hasn", "media", "mux"]`.
pub type ModulePath = Vec<String>;

/// The folders of the crates, and the names that paths call them by.
const CRATES: [(&str, &str); 2] = [("src/", "hasn"), ("kernels/cpu/src/", "hasn_kernels")];

/// A path in the code: a leaf of a `use`, or one in the midst of code.
#[derive(Clone, Debug)]
pub struct Reference {
    pub module: ModulePath,
    pub path: Vec<String>,
    pub line: usize,
    pub form: Form,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// `use a::b` or `use a::b as name`.
    Import { name: String },
    /// `use a::*`.
    Glob { is_public: bool },
    /// `a::b` in code, or a single name.
    Inline,
}

impl Reference {
    /// As it may be found in the code.
    pub fn text(&self) -> String {
        let path = self.path.join("::");
        match &self.form {
            Form::Import { name } if self.path.last() == Some(name) => format!("use {path}"),
            Form::Import { name } => format!("use {path} as {name}"),
            Form::Glob { .. } => format!("use {path}::*"),
            Form::Inline => path,
        }
    }
}

/// What lies in a module.
#[derive(Default)]
struct Module {
    file: String,
    items: BTreeSet<String>,
    imports: Vec<Reference>,
}

enum Target {
    Module(ModulePath),
    /// An item, by the module that defines it.
    Item(ModulePath),
}

/// All modules of a set of files, and all paths in them.
#[derive(Default)]
pub struct Modules {
    modules: BTreeMap<ModulePath, Module>,
    pub references: Vec<Reference>,
}

/// The module that a file is; `None` for a file of no crate, and for a program's `main.rs`.
pub fn module_of(path: &str) -> Option<ModulePath> {
    let (folder, name) = CRATES.into_iter().find(|(folder, _)| path.starts_with(folder))?;
    let inner = path.strip_prefix(folder)?.strip_suffix(".rs")?;
    let mut module = vec![name.to_owned()];
    module.extend(inner.split('/').filter(|part| !["lib", "mod"].contains(part)).map(str::to_owned));
    Some(module)
}

impl Modules {
    /// Of the code without tests.
    pub fn without_tests(files: &[File]) -> Modules {
        let mut modules = Modules::default();
        let tests = test_files(files);
        for (path, text) in files.iter().filter(|(path, _)| !is_below(path, &tests)) {
            modules.add(path, &code_without_tests(&tokens(text)));
        }
        modules
    }

    /// One file's, with its tests.
    pub fn of_file(path: &str, tokens: &[Token]) -> Modules {
        let mut modules = Modules::default();
        let code: Vec<_> = tokens.iter().filter(|token| token.kind != Kind::Comment).cloned().collect();
        modules.add(path, &code);
        modules
    }

    pub fn file_of(&self, module: &ModulePath) -> &str {
        self.modules.get(module).map_or("", |module| &module.file)
    }

    fn add(&mut self, path: &str, code: &[Token]) {
        let Some(module) = module_of(path) else { return };
        self.modules.insert(module.clone(), Module { file: path.to_owned(), ..Module::default() });
        Reader { modules: self, code, at: 0, depth: 0, inner: Vec::new(), module }.read();
    }

    /// The file that a reference depends on, if it is another than its own.
    pub fn file_reached(&self, reference: &Reference) -> Option<&str> {
        let file = self.file_of(&self.module_reached(reference)?);
        (file != self.file_of(&reference.module) && !file.is_empty()).then_some(file)
    }

    fn module_reached(&self, reference: &Reference) -> Option<ModulePath> {
        let Reference { module, path, form, .. } = reference;
        // `Item::new` of an item that was imported says no more than the import.
        let imported = || self.imported(module, &path[0], &mut Vec::new());
        if *form == Form::Inline && matches!(imported(), Some(Target::Item(_))) {
            return None;
        }
        let target = match form {
            // A single name says something only where a glob brought it.
            Form::Inline if path.len() == 1 => self.glob_item(module, &path[0], &mut Vec::new()),
            _ => self.resolve(module, path, &mut Vec::new()),
        };
        match target? {
            Target::Item(found) => Some(found),
            Target::Module(found) => match form {
                // What is used of a module that was imported, the paths in the code say; but its name may be that of
                // an item beside it too.
                Form::Import { .. } => self.item_beside(&found),
                Form::Glob { is_public } => is_public.then_some(found),
                Form::Inline => self.item_beside(&found).or(Some(found)),
            },
        }
    }

    /// Of the module's name, if its parent imports an item of the same name.
    fn item_beside(&self, module: &ModulePath) -> Option<ModulePath> {
        let (name, parent) = module.split_last()?;
        match self.imported(&parent.to_vec(), name, &mut Vec::new())? {
            Target::Item(found) => Some(found),
            Target::Module(_) => None,
        }
    }

    fn resolve(&self, from: &ModulePath, path: &[String], seen: &mut Vec<Vec<String>>) -> Option<Target> {
        let (first, rest) = path.split_first()?;
        let mut target = match first.as_str() {
            "crate" => Target::Module(from[..1].to_vec()),
            "self" => Target::Module(from.clone()),
            "super" => Target::Module(from[..from.len().max(2) - 1].to_vec()),
            name => self.lookup(from, name, seen).or_else(|| {
                let module = vec![name.to_owned()];
                self.modules.contains_key(&module).then_some(Target::Module(module))
            })?,
        };
        for name in rest {
            let Target::Module(module) = &target else { break };
            target = match name.as_str() {
                "super" => Target::Module(module[..module.len().max(2) - 1].to_vec()),
                "self" => Target::Module(module.clone()),
                // What no item is, a macro may have written.
                name => self.lookup(module, name, seen).unwrap_or(Target::Item(module.clone())),
            };
        }
        Some(target)
    }

    fn lookup(&self, module: &ModulePath, name: &str, seen: &mut Vec<Vec<String>>) -> Option<Target> {
        let mut child = module.clone();
        child.push(name.to_owned());
        if self.modules.contains_key(&child) {
            return Some(Target::Module(child));
        }
        // Guards against imports that lead to themselves.
        if seen.contains(&child) {
            return None;
        }
        seen.push(child);
        if self.modules.get(module)?.items.contains(name) {
            return Some(Target::Item(module.clone()));
        }
        self.imported(module, name, seen).or_else(|| self.glob_item(module, name, seen))
    }

    fn imported(&self, module: &ModulePath, name: &str, seen: &mut Vec<Vec<String>>) -> Option<Target> {
        let imports = &self.modules.get(module)?.imports;
        let is_it =
            |import: &&Reference| matches!(&import.form, Form::Import { name: known } if known == name);
        imports.iter().filter(is_it).find_map(|import| self.resolve(module, &import.path, seen))
    }

    fn glob_item(&self, module: &ModulePath, name: &str, seen: &mut Vec<Vec<String>>) -> Option<Target> {
        let imports = &self.modules.get(module)?.imports;
        let mut globs = imports.iter().filter(|import| matches!(import.form, Form::Glob { .. }));
        globs.find_map(|glob| match self.resolve(module, &glob.path, &mut seen.clone())? {
            Target::Module(found) if found != *module => self.lookup(&found, name, seen),
            _ => None,
        })
    }
}

/// Files that tests alone compile, without `.rs`.
fn test_files(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let stem = name.trim_end_matches(".rs");
        for module in test_modules(&tokens(text)) {
            found.push(format!("{folder}/{module}"));
            if !["lib", "mod", "main"].contains(&stem) {
                found.push(format!("{folder}/{stem}/{module}"));
            }
        }
    }
    found
}

fn is_below(path: &str, stems: &[String]) -> bool {
    stems.iter().any(|stem| {
        path.strip_prefix(stem.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    })
}

/// Walks one file's code.
struct Reader<'a> {
    modules: &'a mut Modules,
    code: &'a [Token],
    at: usize,
    /// Open braces.
    depth: usize,
    /// Depths at which inline modules began.
    inner: Vec<usize>,
    module: ModulePath,
}

impl Reader<'_> {
    fn read(&mut self) {
        while let Some(token) = self.code.get(self.at) {
            match token.kind {
                Kind::Word => self.word(),
                Kind::Mark => self.mark(),
                _ => self.at += 1,
            }
        }
    }

    fn mark(&mut self) {
        match self.code[self.at].text.as_str() {
            "{" => self.depth += 1,
            "}" => {
                self.depth = self.depth.saturating_sub(1);
                if self.inner.last() == Some(&self.depth) {
                    self.inner.pop();
                    self.module.pop();
                }
            }
            _ => {}
        }
        self.at += 1;
    }

    fn word(&mut self) {
        match self.code[self.at].text.as_str() {
            "pub" if self.is_next("(") => self.at = close_of(self.code, self.at + 1) + 1,
            "use" if !self.is_next("<") => self.import(),
            "mod" => self.inner_module(),
            "fn" | "struct" | "enum" | "trait" | "type" | "static" | "const" | "union" | "macro_rules" => {
                self.definition();
            }
            _ => self.inline_path(),
        }
    }

    fn is_next(&self, mark: &str) -> bool {
        self.code.get(self.at + 1).is_some_and(|token| token.is_mark(mark))
    }

    fn definition(&mut self) {
        let is_of_module = self.depth == self.inner.last().map_or(0, |depth| depth + 1);
        self.at += 1;
        while self.code.get(self.at).is_some_and(|token| token.is_word("mut") || token.is_mark("!")) {
            self.at += 1;
        }
        let Some(name) = self.code.get(self.at).filter(|token| token.kind == Kind::Word) else { return };
        if ["fn", "unsafe", "extern", "async"].contains(&name.text.as_str()) {
            return;
        }
        if is_of_module {
            self.modules.modules.get_mut(&self.module).unwrap().items.insert(name.text.clone());
        }
        self.at += 1;
    }

    fn inner_module(&mut self) {
        let name = self.code.get(self.at + 1).map(|token| token.text.clone());
        let is_inline = self.code.get(self.at + 2).is_some_and(|token| token.is_mark("{"));
        if let Some(name) = name.filter(|_| is_inline) {
            let file = self.modules.file_of(&self.module).to_owned();
            self.module.push(name);
            self.modules.modules.insert(self.module.clone(), Module { file, ..Module::default() });
            self.inner.push(self.depth);
            self.depth += 1;
        }
        self.at += 3;
    }

    fn import(&mut self) {
        let is_public =
            self.at > 0 && (self.code[self.at - 1].is_word("pub") || self.code[self.at - 1].is_mark(")"));
        self.at += 1;
        self.use_tree(Vec::new(), is_public);
        self.at += 1;
    }

    /// One tree of a `use`, up to the `,`, `}` or `;` that ends it.
    fn use_tree(&mut self, mut path: Vec<String>, is_public: bool) {
        let mut name = None;
        let mut line = self.code.get(self.at).map_or(0, |token| token.line);
        while let Some(token) = self.code.get(self.at) {
            match token.text.as_str() {
                "," | "}" | ";" => break,
                "{" => {
                    self.at += 1;
                    while self.code.get(self.at).is_some_and(|token| !token.is_mark("}")) {
                        self.use_tree(path.clone(), is_public);
                        self.at +=
                            usize::from(self.code.get(self.at).is_some_and(|token| token.is_mark(",")));
                    }
                    self.at += 1;
                    return;
                }
                "*" => {
                    self.at += 1;
                    return self.note(path, line, Form::Glob { is_public });
                }
                "as" => {
                    self.at += 1;
                    name = self.code.get(self.at).map(|token| token.text.clone());
                }
                "self" if !path.is_empty() => {}
                _ if token.kind == Kind::Word => path.push(token.text.clone()),
                _ => {}
            }
            line = self.code[self.at].line;
            self.at += 1;
        }
        let Some(last) = path.last() else { return };
        let name = name.unwrap_or_else(|| last.clone());
        self.note(path, line, Form::Import { name });
    }

    fn inline_path(&mut self) {
        let is_start = self.at == 0 || {
            let before = &self.code[self.at - 1];
            !before.is_mark("::") && !before.is_mark(".")
        };
        let line = self.code[self.at].line;
        let mut path = vec![self.code[self.at].text.clone()];
        self.at += 1;
        while self.is_here("::") && self.code.get(self.at + 1).is_some_and(|token| token.kind == Kind::Word) {
            path.push(self.code[self.at + 1].text.clone());
            self.at += 2;
        }
        if is_start {
            self.note(path, line, Form::Inline);
        }
    }

    fn is_here(&self, mark: &str) -> bool {
        self.code.get(self.at).is_some_and(|token| token.is_mark(mark))
    }

    fn note(&mut self, path: Vec<String>, line: usize, form: Form) {
        let reference = Reference { module: self.module.clone(), path, line, form };
        if reference.form != Form::Inline {
            self.modules.modules.get_mut(&self.module).unwrap().imports.push(reference.clone());
        }
        self.modules.references.push(reference);
    }
}

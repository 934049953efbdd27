//! Rust source as tokens with line numbers. A tokenizer for this code base: comments, strings of all kinds, characters
//! and lifetimes are told apart; numbers and the other marks need no more than their text.

use std::path::Path;

/// A file's path from the project's root, and its text.
pub type File = (String, String);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// An identifier or keyword.
    Word,
    /// The content of a string literal.
    Text,
    /// A comment with its slashes.
    Comment,
    /// Everything else: `::` is one token, other punctuation one token a character.
    Mark,
}

#[derive(Clone, Debug)]
pub struct Token {
    pub kind: Kind,
    pub text: String,
    pub line: usize,
}

impl Token {
    pub fn is_word(&self, text: &str) -> bool {
        self.kind == Kind::Word && self.text == text
    }

    pub fn is_mark(&self, text: &str) -> bool {
        self.kind == Kind::Mark && self.text == text
    }

    /// Whether the token is neither a comment nor a string.
    pub fn is_code(&self) -> bool {
        matches!(self.kind, Kind::Word | Kind::Mark)
    }
}

/// The project's file or folder of this name.
pub fn project_file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// All files of one extension under a folder of the project.
pub fn files_under(folder: &str, extension: &str) -> Vec<File> {
    let names = names_under(folder).into_iter().filter(|name| name.ends_with(&format!(".{extension}")));
    names.map(|name| (name.clone(), std::fs::read_to_string(project_file(&name)).unwrap())).collect()
}

/// The paths of all files under a folder of the project, in order.
pub fn names_under(folder: &str) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(project_file(folder)).expect("a folder of the project") {
        let entry = entry.unwrap();
        let name = format!("{folder}/{}", entry.file_name().to_str().expect("names are UTF-8"));
        match entry.path().is_dir() {
            true => names.extend(names_under(&name)),
            false => names.push(name),
        }
    }
    names.sort();
    names
}

pub fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < text.len() {
        let rest = &text[at..];
        let (kind, length) = first_token(rest);
        if let Some(kind) = kind {
            let text = match kind {
                Kind::Text => string_content(&rest[..length]),
                _ => rest[..length].to_owned(),
            };
            tokens.push(Token { kind, text, line });
        }
        line += rest[..length].matches('\n').count();
        at += length;
    }
    tokens
}

/// The kind and length of the token at the start of `rest`; no kind for white space.
fn first_token(rest: &str) -> (Option<Kind>, usize) {
    let first = rest.chars().next().expect("the rest is not empty");
    if first.is_whitespace() {
        return (None, first.len_utf8());
    }
    if rest.starts_with("//") {
        return (Some(Kind::Comment), rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Some(Kind::Comment), block_comment_length(rest));
    }
    if let Some(length) = string_length(rest) {
        return (Some(Kind::Text), length);
    }
    if first == '\'' {
        return (Some(Kind::Mark), quote_length(rest));
    }
    if rest.starts_with("::") {
        return (Some(Kind::Mark), 2);
    }
    if first.is_ascii_digit() {
        return (Some(Kind::Mark), number_length(rest));
    }
    if is_word_part(first) {
        return (Some(Kind::Word), rest.find(|c| !is_word_part(c)).unwrap_or(rest.len()));
    }
    (Some(Kind::Mark), first.len_utf8())
}

fn is_word_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn block_comment_length(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of a string literal at the start of `rest`, with its prefix, hashes and quotes; `None` if there is none.
fn string_length(rest: &str) -> Option<usize> {
    let prefix =
        ["br", "cr", "b", "c", "r"].into_iter().find(|prefix| rest.starts_with(prefix)).unwrap_or("");
    let body = &rest[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let content = body[hashes..].strip_prefix('"')?;
        let close = format!("\"{}", "#".repeat(hashes));
        let end = content.find(&close).map_or(content.len(), |end| end + close.len());
        return Some(prefix.len() + hashes + 1 + end);
    }
    let content = body.strip_prefix('"')?;
    let mut escaped = false;
    for (i, c) in content.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(prefix.len() + i + 2),
            _ => {}
        }
    }
    Some(rest.len())
}

/// What a literal says: quotes gone, lines that a `\` joins joined.
fn string_content(literal: &str) -> String {
    let content = literal.trim_start_matches(['b', 'c', 'r']).trim_matches('#');
    let content = content.strip_prefix('"').unwrap_or(content);
    let content = content.strip_suffix('"').unwrap_or(content);
    let mut parts = content.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |joined, part| joined + part.trim_start())
}

/// The length of a character or a lifetime.
fn quote_length(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((escaped, _))) => {
            rest[escaped + 1..].find('\'').map_or(rest.len(), |end| escaped + end + 2)
        }
        (Some(_), Some((end, '\''))) => end + 1,
        _ => rest[1..].find(|c| !is_word_part(c)).map_or(rest.len(), |end| end + 1),
    }
}

fn number_length(rest: &str) -> usize {
    let mut end = 0;
    for (i, c) in rest.char_indices() {
        let is_point = c == '.' && rest[i + 1..].starts_with(|next: char| next.is_ascii_digit());
        if !is_word_part(c) && !is_point {
            break;
        }
        end = i + c.len_utf8();
    }
    end
}

/// The code without comments and without what only tests compile.
pub fn code_without_tests(tokens: &[Token]) -> Vec<Token> {
    let tokens: Vec<_> = tokens.iter().filter(|token| token.kind != Kind::Comment).cloned().collect();
    let mut code = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match attribute_end(&tokens, at) {
            Some(_) if is_inner_attribute(&tokens, at) && is_test_attribute(&tokens, at) => {
                return Vec::new();
            }
            Some(end) if is_test_attribute(&tokens, at) => at = item_end(&tokens, end),
            Some(end) => {
                code.extend_from_slice(&tokens[at..end]);
                at = end;
            }
            None => {
                code.push(tokens[at].clone());
                at += 1;
            }
        }
    }
    code
}

/// The files that tests alone compile: `#[cfg(test)] mod x;` gives `x.rs` and everything below `x/`.
pub fn test_modules(tokens: &[Token]) -> Vec<String> {
    let tokens: Vec<_> = tokens.iter().filter(|token| token.kind != Kind::Comment).cloned().collect();
    let mut modules = Vec::new();
    for at in 0..tokens.len() {
        let Some(end) = attribute_end(&tokens, at).filter(|_| is_test_attribute(&tokens, at)) else {
            continue;
        };
        let item = &tokens[at..item_end(&tokens, end)];
        if let [.., keyword, name, end] = item
            && keyword.is_word("mod")
            && end.is_mark(";")
        {
            let path = item.iter().find(|token| token.kind == Kind::Text);
            modules.push(path.map_or(name.text.clone(), |path| path.text.trim_end_matches(".rs").to_owned()));
        }
    }
    modules
}

/// The index after the attribute that begins at `at`.
fn attribute_end(tokens: &[Token], at: usize) -> Option<usize> {
    let open = if is_inner_attribute(tokens, at) { at + 2 } else { at + 1 };
    (tokens[at].is_mark("#") && tokens.get(open)?.is_mark("[")).then(|| close_of(tokens, open) + 1)
}

fn is_inner_attribute(tokens: &[Token], at: usize) -> bool {
    tokens[at].is_mark("#") && tokens.get(at + 1).is_some_and(|token| token.is_mark("!"))
}

/// `#[test]`, `#[cfg(test)]`, `#[cfg(all(test, ...))]`, but not `#[cfg(not(test))]`.
fn is_test_attribute(tokens: &[Token], at: usize) -> bool {
    let attribute = &tokens[at..attribute_end(tokens, at).unwrap_or(at)];
    let has = |word| attribute.iter().any(|token| token.is_word(word));
    has("test") && (has("cfg") && !has("not") || attribute.len() == 4)
}

/// The index of the bracket that closes the one at `open`.
pub fn close_of(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(open).filter(|(_, token)| token.kind == Kind::Mark) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i;
        }
    }
    tokens.len() - 1
}

/// The index after the item, statement, field or arm that begins at `at`, its attributes included.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    while let Some(end) = tokens.get(at).and_then(|_| attribute_end(tokens, at)) {
        at = end;
    }
    let start = at;
    while let Some(token) = tokens.get(at) {
        let head = &tokens[start..at];
        let has = |words: &[&str]| head.iter().any(|token| words.iter().any(|word| token.is_word(word)));
        let ends_in_brace = has(&["fn", "struct", "enum", "impl", "mod", "trait", "union", "macro_rules"]);
        let ends_in_semicolon = !ends_in_brace && has(&["use", "const", "static", "type", "let"]);
        match token.text.as_str() {
            _ if token.kind != Kind::Mark => at += 1,
            ";" => return at + 1,
            "," if !ends_in_brace && !ends_in_semicolon => return at + 1,
            ")" | "]" | "}" => return at,
            "{" if !ends_in_semicolon => return close_of(tokens, at) + 1,
            "(" | "[" | "{" => at = close_of(tokens, at) + 1,
            _ => at += 1,
        }
    }
    at
}

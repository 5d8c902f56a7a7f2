//! The tree's files, and Rust source as tokens: comments and text in quotes are not code.

use std::path::Path;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// One file of the tree.
pub struct File {
    /// From the top of the tree, with `/`.
    pub path: String,
    pub text: String,
    pub executable: bool,
}

/// Every text file of the tree, built things and the lock file left out.
pub fn tree() -> Vec<File> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(top, top, &mut files);
    assert!(files.iter().any(|file| file.path == "src/lib.rs"), "the tree is found");
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn collect(top: &Path, directory: &Path, files: &mut Vec<File>) {
    use std::os::unix::fs::PermissionsExt;
    for entry in std::fs::read_dir(directory).expect("a readable directory") {
        let entry = entry.expect("a readable entry");
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        let kind = entry.file_type().expect("a file type");
        let built =
            name.starts_with("target") || matches!(name.as_str(), ".git" | "Cargo.lock" | "__pycache__");
        if built || kind.is_symlink() {
            continue;
        }
        if kind.is_dir() {
            collect(top, &path, files);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            let executable = entry.metadata().is_ok_and(|m| m.permissions().mode() & 0o111 != 0);
            let path = path.strip_prefix(top).expect("below the top").to_string_lossy().into_owned();
            files.push(File { path, text, executable });
        }
    }
}

/// A word, a mark or a group's edge, and where it stands.
#[derive(Clone, Debug)]
pub struct Token {
    /// An identifier, a mark (`::` is one), or one of `([{}])`. Literals are `""`.
    pub text: String,
    pub line: usize,
    /// Modules around it in this file.
    pub depth: usize,
    /// Below `#[cfg(test)]`.
    pub test: bool,
}

/// Source as tokens in their order. Text that is not Rust is an error with its reason.
pub fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let stream: TokenStream = text.parse().map_err(|error| format!("not Rust: {error}"))?;
    let mut out = Vec::new();
    flatten(stream, 0, false, &mut out);
    Ok(out)
}

fn flatten(stream: TokenStream, depth: usize, in_test: bool, out: &mut Vec<Token>) {
    // Whether the item that follows is only for tests: set by its attribute, cleared where it ends.
    let mut item_is_test = false;
    for tree in stream {
        let (line, test) = (tree.span().start().line, in_test || item_is_test);
        let push = |text: &str, line, out: &mut Vec<Token>| {
            out.push(Token { text: text.to_owned(), line, depth, test });
        };
        match tree {
            TokenTree::Ident(ident) => push(&ident.to_string(), line, out),
            TokenTree::Literal(_) => push("", line, out),
            TokenTree::Punct(mark) => {
                let joined = mark.as_char() == ':' && mark.spacing() == Spacing::Alone;
                match out.last_mut() {
                    Some(last) if joined && last.text == ":" => last.text.push(':'),
                    _ => push(&mark.as_char().to_string(), line, out),
                }
                item_is_test &= mark.as_char() != ';';
            }
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::None => ("", ""),
                };
                let is_module = open == "{" && out.len() >= 2 && out[out.len() - 2].text == "mod";
                push(open, line, out);
                let begin = out.len();
                flatten(group.stream(), depth + usize::from(is_module), test, out);
                let words: Vec<&str> = out[begin..].iter().map(|token| token.text.as_str()).collect();
                item_is_test |= open == "[" && matches!(words[..], ["cfg", "(", "test", ")"]);
                push(close, group.span_close().start().line, out);
                item_is_test &= open != "{";
            }
        }
    }
}

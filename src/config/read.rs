//! From TOML to typed keys. Serde's derive stops at the first wrong value and
//! the first unknown key; an operator wants all of them. So a table is declared
//! once with [`tables!`], which makes its type, its reader (refusing unknown
//! keys), and the list of its keys with their defaults.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::report::{Place, Report};

/// A value with its place in the file. What was wrong or is absent holds no value.
#[derive(Debug)]
pub(crate) struct Key<T> {
    /// Where it stands.
    pub place: Place,
    value: Option<T>,
}

impl<T> Key<T> {
    /// Its value; `None` when it was wrong (and reported) or is absent.
    pub fn get(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// Whether the file names it.
    pub fn is_given(&self) -> bool {
        self.place.shown.is_some()
    }

    /// An optional key's value, absent as `Some(None)`; `None` when it was wrong.
    pub fn optional(&self) -> Option<Option<&T>> {
        match &self.value {
            Some(value) => Some(Some(value)),
            None if !self.is_given() => Some(None),
            None => None,
        }
    }
}

impl<T> Key<Vec<Key<T>>> {
    /// The elements that could be read.
    pub fn elements(&self) -> impl Iterator<Item = (&Place, &T)> {
        self.get().into_iter().flatten().filter_map(|key| Some((&key.place, key.get()?)))
    }

    /// All elements, unless one was wrong.
    pub fn all(&self) -> Option<Vec<(&Place, &T)>> {
        self.get()?.iter().map(|key| Some((&key.place, key.get()?))).collect()
    }
}

/// Whether a key must be there, and what it is when it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Its table is refused without it.
    Required,
    /// It has no value then.
    Optional,
    /// It has this one then, as TOML.
    Default(&'static str),
}

impl Presence {
    /// From the right side of a declaration in [`tables!`].
    pub(crate) fn of(text: &'static str) -> Presence {
        match text {
            "required" => Presence::Required,
            "optional" => Presence::Optional,
            default => Presence::Default(default),
        }
    }
}

/// A key that the file may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// Its path without the places in lists: `pool.server.weight`.
    pub path: String,
    /// Whether it must be there.
    pub presence: Presence,
}

/// The text of the file.
pub(crate) struct Source<'t> {
    text: &'t str,
    /// Where each line begins.
    lines: Vec<usize>,
}

impl<'t> Source<'t> {
    /// Of this text.
    pub fn new(text: &'t str) -> Source<'t> {
        let breaks = text.bytes().enumerate().filter(|&(_, b)| b == b'\n').map(|(i, _)| i + 1);
        Source { text, lines: core::iter::once(0).chain(breaks).collect() }
    }

    /// The line of a byte, from 1.
    pub fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|&start| start <= offset)
    }

    /// The text in `span`, cut to what fits into a message.
    fn shown(&self, span: Range<usize>) -> String {
        let text = self.text.get(span).unwrap_or("").lines().next().unwrap_or("");
        match text.char_indices().nth(60) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.to_owned(),
        }
    }
}

/// A key whose value in one file is not what it is in another.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// Where it is now.
    pub place: Place,
    /// The value as it stood in the file before; `None`: it was not there.
    pub before: Option<String>,
}

impl Change {
    fn of(now: &Place, before: &Place) -> Change {
        Change { place: now.clone(), before: before.shown.clone() }
    }
}

/// [`FromFile::changes`] of what has no keys in it.
pub(crate) fn changed<T: PartialEq>(now: (&Place, &T), before: (&Place, &T), out: &mut Vec<Change>) {
    if now.1 != before.1 {
        out.push(Change::of(now.0, before.0));
    }
}

/// What can stand on the right of a key.
pub(crate) trait FromFile: Sized {
    /// Reads it, or reports why not.
    fn from_file(
        place: &Place,
        value: &DeValue<'_>,
        source: &Source<'_>,
        report: &mut Report,
    ) -> Option<Self>;

    /// Names what is another value now than it was before: itself, or keys in it. Both with their places.
    fn changes(now: (&Place, &Self), before: (&Place, &Self), out: &mut Vec<Change>);

    /// Names it, or the keys in it.
    fn known_keys(path: &str, presence: Presence, out: &mut Vec<KnownKey>) {
        out.push(KnownKey { path: path.to_owned(), presence });
    }
}

impl<T: FromFile> Key<T> {
    /// Names what is another value here than it was `before`.
    pub fn changes(&self, before: &Key<T>, out: &mut Vec<Change>) {
        match (&self.value, &before.value) {
            (Some(now), Some(value)) => T::changes((&self.place, now), (&before.place, value), out),
            (None, None) => {}
            (Some(_), None) | (None, Some(_)) => out.push(Change::of(&self.place, &before.place)),
        }
    }
}

impl<T: FromFile> FromFile for Vec<Key<T>> {
    fn changes(now: (&Place, &Self), before: (&Place, &Self), out: &mut Vec<Change>) {
        if now.1.len() != before.1.len() {
            return out.push(Change::of(now.0, before.0));
        }
        for (now, before) in now.1.iter().zip(before.1) {
            now.changes(before, out);
        }
    }

    fn from_file(
        place: &Place,
        value: &DeValue<'_>,
        source: &Source<'_>,
        report: &mut Report,
    ) -> Option<Self> {
        let DeValue::Array(array) = value else {
            report.refuse(place, "a list: [ … ]");
            return None;
        };
        let elements = array.iter().enumerate().map(|(index, element)| {
            let name = match element.get_ref() {
                DeValue::Table(table) => table.get("name").and_then(|name| name.get_ref().as_str()),
                _ => None,
            };
            let label = name.map_or_else(|| index.to_string(), str::to_owned);
            let place = Place {
                path: format!("{}[{label}]", place.path),
                // An element of a default has no place of its own.
                line: if place.shown.is_some() { source.line(element.span().start) } else { place.line },
                shown: place.shown.as_ref().map(|_| source.shown(element.span())),
            };
            let value = T::from_file(&place, element.get_ref(), source, report);
            Key { place, value }
        });
        Some(elements.collect())
    }

    fn known_keys(path: &str, presence: Presence, out: &mut Vec<KnownKey>) {
        T::known_keys(path, presence, out);
    }
}

/// Reads the key `name` of a table.
pub(crate) fn read_key<T: FromFile>(
    table: &DeTable<'_>,
    of: &Place,
    name: &str,
    presence: Presence,
    source: &Source<'_>,
    report: &mut Report,
) -> Key<T> {
    let path = join(&of.path, name);
    if let Some((key, value)) = table.get_key_value(name) {
        let place =
            Place { path, line: source.line(key.span().start), shown: Some(source.shown(value.span())) };
        let value = T::from_file(&place, value.get_ref(), source, report);
        return Key { place, value };
    }
    let place = Place { path, line: of.line, shown: None };
    let value = match presence {
        Presence::Optional => None,
        Presence::Required => {
            report
                .refuse(&place, format!("it in {}", if of.path.is_empty() { "the file" } else { &of.path }));
            None
        }
        Presence::Default(default) => DeValue::parse(default)
            .ok()
            .and_then(|value| T::from_file(&place, value.get_ref(), source, report)),
    };
    Key { place, value }
}

/// Refuses what is not in `known`, and says which key is nearest.
pub(crate) fn refuse_unknown(
    table: &DeTable<'_>,
    of: &Place,
    known: &[&str],
    source: &Source<'_>,
    report: &mut Report,
) {
    for (key, value) in table.iter() {
        let name: &str = key.get_ref();
        if known.contains(&name) {
            continue;
        }
        let place = Place {
            path: join(&of.path, name),
            line: source.line(key.span().start),
            shown: Some(source.shown(value.span())),
        };
        let nearest = known
            .iter()
            .map(|known| (strsim::damerau_levenshtein(known, name), known))
            .min()
            .filter(|(distance, known)| *distance <= 2.max(known.len() / 3));
        report.refuse(
            &place,
            match nearest {
                Some((_, nearest)) => format!("a key that is known here; did you mean \"{nearest}\"?"),
                None => format!("a key that is known here: {}", known.join(", ")),
            },
        );
    }
}

/// A value's place and text, for types that read a table themselves.
pub(crate) fn root(text: &Spanned<DeTable<'_>>, source: &Source<'_>) -> Place {
    Place { path: String::new(), line: 1, shown: Some(source.shown(text.span())) }
}

pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Declares tables: `key: Type = required`, `= optional`, or `= default` as TOML.
macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident { $($(#[$key_doc:meta])* $key:ident: $type:ty = $presence:tt,)* })+) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub(crate) struct $name { $($(#[$key_doc])* pub $key: Key<$type>,)* }

            impl FromFile for $name {
                fn changes(now: (&Place, &Self), before: (&Place, &Self), out: &mut Vec<Change>) {
                    $(now.1.$key.changes(&before.1.$key, out);)*
                }

                fn from_file(
                    place: &Place,
                    value: &DeValue<'_>,
                    source: &Source<'_>,
                    report: &mut Report,
                ) -> Option<Self> {
                    let DeValue::Table(table) = value else {
                        report.refuse(place, concat!("a table with the keys ", $(stringify!($key), " ",)*).trim_end());
                        return None;
                    };
                    refuse_unknown(table, place, &[$(stringify!($key)),*], source, report);
                    Some($name {
                        $($key: read_key(
                            table, place, stringify!($key), Presence::of(stringify!($presence)), source, report,
                        ),)*
                    })
                }

                fn known_keys(path: &str, _: Presence, out: &mut Vec<KnownKey>) {
                    $(<$type>::known_keys(
                        &join(path, stringify!($key)), Presence::of(stringify!($presence)), out,
                    );)*
                }
            }
        )+
    };
}
pub(crate) use tables;

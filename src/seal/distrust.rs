//! Why what speaks in a member's name is not believed.

use serde::Serialize;

use super::frame::Refused;

/// Why what speaks in a member's name is not believed. It is dropped and counted; nothing else comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distrust {
    /// It was not sealed with the session's key, or was changed.
    Forged,
    /// It was accepted before, or is so old that nobody remembers whether it was.
    Replayed,
    /// It belongs to a session that is over, or to a process that has ended.
    EarlierSession,
    /// It claims to lead in a lower term than the one that is followed.
    OldTerm,
    /// Its session was agreed with a key that is not accepted any more, and it proves none that is.
    KeyGone,
    /// It proves a key that is not accepted, in a session that was agreed with one that is.
    OtherKey,
}

impl Distrust {
    /// All of them, in the order of [`Distrust::index`].
    pub const ALL: [Distrust; 6] = [
        Distrust::Forged,
        Distrust::Replayed,
        Distrust::EarlierSession,
        Distrust::OldTerm,
        Distrust::KeyGone,
        Distrust::OtherKey,
    ];

    /// Its place in a table.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl From<Refused> for Distrust {
    fn from(refused: Refused) -> Distrust {
        match refused {
            Refused::Replayed | Refused::TooOld => Distrust::Replayed,
            Refused::Forged | Refused::Malformed => Distrust::Forged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_place_of_its_own() {
        for (at, what) in Distrust::ALL.into_iter().enumerate() {
            assert_eq!(what.index(), at);
        }
    }
}

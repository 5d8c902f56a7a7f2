//! How a port spreads what it receives over its queues, as `baton ports` shows it: by receive-side scaling (RSS) or
//! otherwise.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who brings packets to different lcores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpreadBy {
    /// Nobody: one lcore receives, from one queue.
    #[default]
    OneQueue,
    /// The port, by RSS: it said itself that it does what it was asked for.
    Port,
    /// The lcores, by handing packets over: the port cannot, or does something else than it was asked for.
    Software,
}

/// How one port spreads packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RssReport {
    /// Who does it.
    pub by: SpreadBy,
    /// What the port was asked to hash, and accepted; `None`: nothing.
    pub hashes: Option<String>,
    /// Receive queues.
    pub queues: u16,
    /// Buckets of the port's table, each of which names a queue; 0: it has none that can be set.
    pub buckets: u16,
    /// What the port does otherwise than was wished; `None`: nothing.
    pub why: Option<String>,
}

impl RssReport {
    /// Without the reasons.
    pub fn short(&self) -> String {
        let hashes = self.hashes.as_deref().unwrap_or("-");
        match self.by {
            SpreadBy::OneQueue => "one queue".to_owned(),
            SpreadBy::Port => format!("{hashes}; {} queues, {} buckets", self.queues, self.buckets),
            SpreadBy::Software => "software".to_owned(),
        }
    }
}

impl fmt::Display for RssReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())?;
        self.why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_who_spreads_packets_and_why() {
        let port = RssReport {
            by: SpreadBy::Port,
            hashes: Some("source of TCP and UDP".to_owned()),
            queues: 2,
            buckets: 128,
            why: None,
        };
        assert_eq!(port.to_string(), "source of TCP and UDP; 2 queues, 128 buckets");
        let less = RssReport { why: Some("it does not hash UDP over IPv6".to_owned()), ..port.clone() };
        assert_eq!(
            less.to_string(),
            "source of TCP and UDP; 2 queues, 128 buckets: it does not hash UDP over IPv6"
        );
        let software = RssReport { by: SpreadBy::Software, why: Some("it offers no RSS".to_owned()), ..port };
        assert_eq!(software.to_string(), "software: it offers no RSS");
        assert_eq!(RssReport::default().to_string(), "one queue");
    }
}

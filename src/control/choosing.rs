//! Whether one flow is mirrored: what an operator asks, and why a flow is, in words.

use core::net::SocketAddr;

use crate::config::checked::Protocol;
use crate::flow::Key;
use crate::flow::key::{TCP, UDP};
use crate::worker::message::{Because, Choice, ChoiceAnswer};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What is wanted.
    pub choice: Choice,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The client's address and port.
    pub client: SocketAddr,
    /// The virtual server's address and port.
    pub to: SocketAddr,
}

impl Wish {
    /// As the query of [`super::paths::FLOW_MIRROR`].
    pub fn to_query(self) -> String {
        let Wish { choice, protocol, client, to } = self;
        format!("choice={}&protocol={protocol}&client={client}&virtual={to}", choice_text(choice))
    }

    /// From a query, or a sentence that says what is wrong with it.
    pub fn from_query(query: &str) -> Result<Wish, String> {
        let (mut choice, mut protocol, mut client, mut to) = (None, None, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let wrong = || format!("{key}={value} is not understood");
            match key {
                "choice" => choice = Some(choice_of(value).ok_or_else(wrong)?),
                "protocol" => protocol = Some(protocol_of(value).ok_or_else(wrong)?),
                "client" => client = Some(value.parse::<SocketAddr>().map_err(|_| wrong())?),
                "virtual" => to = Some(value.parse::<SocketAddr>().map_err(|_| wrong())?),
                _ => return Err(format!("unknown key {key}")),
            }
        }
        let missing = |key: &str| format!("{key}=... is missing");
        let wish = Wish {
            choice: choice.ok_or_else(|| missing("choice"))?,
            protocol: protocol.ok_or_else(|| missing("protocol"))?,
            client: client.ok_or_else(|| missing("client"))?,
            to: to.ok_or_else(|| missing("virtual"))?,
        };
        match wish.client.is_ipv4() == wish.to.is_ipv4() {
            true => Ok(wish),
            false => Err("client and virtual address are both of IPv4, or both of IPv6".to_owned()),
        }
    }

    /// What packets of its client carry.
    pub fn key(&self) -> Key {
        Key {
            src: self.client.ip().into(),
            dst: self.to.ip().into(),
            src_port: self.client.port(),
            dst_port: self.to.port(),
            vlan: 0,
            protocol: match self.protocol {
                Protocol::Tcp => TCP,
                Protocol::Udp => UDP,
            },
        }
    }
}

fn choice_of(text: &str) -> Option<Choice> {
    [Choice::On, Choice::Off, Choice::Auto].into_iter().find(|choice| choice_text(*choice) == text)
}

const fn choice_text(choice: Choice) -> &'static str {
    match choice {
        Choice::On => "on",
        Choice::Off => "off",
        Choice::Auto => "auto",
    }
}

fn protocol_of(text: &str) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp].into_iter().find(|protocol| protocol.to_string() == text)
}

/// Why a flow is mirrored, or not.
pub fn why(because: Because) -> String {
    match because {
        Because::VirtualServer => "virtual server".to_owned(),
        Because::Rule(number) => format!("rule {number}"),
        Because::NoRule => "no rule".to_owned(),
        Because::Operator => "operator".to_owned(),
        Because::Kept => "as it was".to_owned(),
    }
}

/// What came of a wish, by what each worker said: a sentence, or why it came to nothing.
pub fn outcome(wish: &Wish, said: &[ChoiceAnswer]) -> Result<String, String> {
    let Wish { protocol, client, to, .. } = wish;
    // The worker that has the flow says more than those that have not.
    let known = said.iter().find(|answer| **answer != ChoiceAnswer::Unknown);
    match known {
        Some(ChoiceAnswer::Done { mirrors, because }) => {
            let is = if *mirrors { "is mirrored" } else { "is not mirrored" };
            Ok(format!("{protocol} {client} to {to} {is} ({})", why(*because)))
        }
        Some(ChoiceAnswer::Standby) => {
            Err("this appliance does not lead, or is handing over: ask the active".to_owned())
        }
        Some(ChoiceAnswer::Alone) => {
            Err("there are no peers to mirror to: the configuration has no [mirror]".to_owned())
        }
        Some(ChoiceAnswer::Moving) => {
            Err("the flow is on its way to another worker: ask again in a moment".to_owned())
        }
        Some(ChoiceAnswer::Needed) => Err(format!(
            "{protocol} {client} to {to} stays mirrored: it came with a takeover, and its source-NAT port is another member's, which \
             has to know of it as long as it lives"
        )),
        Some(ChoiceAnswer::Busy) => {
            Err("peers have yet to acknowledge the ends of too many flows: ask again in a moment".to_owned())
        }
        Some(ChoiceAnswer::Unknown) | None => Err(format!("there is no flow {protocol} {client} to {to}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_survives_its_query_and_a_query_that_is_none_is_refused_with_a_sentence() {
        for (choice, protocol, client, to) in [
            (Choice::On, Protocol::Tcp, "192.0.2.1:40000", "10.1.0.100:80"),
            (Choice::Off, Protocol::Udp, "[2001:db8::1]:53", "[fd01::100]:53"),
            (Choice::Auto, Protocol::Tcp, "192.0.2.1:1", "10.1.0.100:443"),
        ] {
            let (client, to) = (client.parse().unwrap(), to.parse().unwrap());
            let wish = Wish { choice, protocol, client, to };
            assert_eq!(Wish::from_query(&wish.to_query()), Ok(wish));
        }
        let all = "choice=on&protocol=tcp&client=192.0.2.1:1&virtual=10.1.0.100:80";
        for (query, why) in [
            ("", "choice=... is missing"),
            ("choice=on&protocol=tcp&client=192.0.2.1:1", "virtual=... is missing"),
            ("choice=maybe", "choice=maybe is not understood"),
            (&all.replace("192.0.2.1:1", "192.0.2.1"), "client=192.0.2.1 is not understood"),
            (&all.replace("tcp", "icmp"), "protocol=icmp is not understood"),
            (&format!("{all}&now=true"), "unknown key now"),
            (
                &all.replace("10.1.0.100:80", "[fd01::100]:80"),
                "client and virtual address are both of IPv4, or both of IPv6",
            ),
        ] {
            assert_eq!(Wish::from_query(query), Err(why.to_owned()));
        }
    }

    #[test]
    fn the_worker_that_has_the_flow_is_listened_to() {
        let wish =
            Wish::from_query("choice=off&protocol=tcp&client=192.0.2.1:1&virtual=10.1.0.100:80").unwrap();
        let done = ChoiceAnswer::Done { mirrors: false, because: Because::Operator };
        let said = [ChoiceAnswer::Unknown, done];
        let told = "tcp 192.0.2.1:1 to 10.1.0.100:80 is not mirrored (operator)";
        assert_eq!(outcome(&wish, &said), Ok(told.to_owned()));
        let none = "there is no flow tcp 192.0.2.1:1 to 10.1.0.100:80";
        assert_eq!(outcome(&wish, &[ChoiceAnswer::Unknown; 2]), Err(none.to_owned()));
        for refused in [
            ChoiceAnswer::Standby,
            ChoiceAnswer::Alone,
            ChoiceAnswer::Moving,
            ChoiceAnswer::Needed,
            ChoiceAnswer::Busy,
        ] {
            assert!(outcome(&wish, &[ChoiceAnswer::Unknown, refused]).is_err());
        }
    }
}

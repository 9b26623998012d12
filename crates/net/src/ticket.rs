//! Tickets: one string that a person copies to another machine, with all that a node needs to find a run.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use wire::{Hash, NodeId, RunId};

use crate::{PeerAddress, limits};

/// Where a run is: its orchestrator's id and addresses, and which run is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Run.
    pub run: RunId,
    /// The run's orchestrator.
    pub node: NodeId,
    /// Where it is, its relay included.
    pub address: PeerAddress,
}

/// Why text is not a ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Does not start as tickets do.
    #[error("not a ticket: it must start with \"{PREFIX}\"")]
    Prefix,
    /// Longer than any ticket.
    #[error("not a ticket: {0} characters, at most {limit} are possible", limit = limits::TICKET_BYTES)]
    TooLong(usize),
    /// A character that no ticket has.
    #[error("not a ticket: character {found:?} at position {position}")]
    Character {
        /// Position, from 1.
        position: usize,
        /// What stands there.
        found: char,
    },
    /// Something was lost or changed on the way.
    #[error("the ticket is incomplete or mistyped (its check sum is wrong)")]
    CheckSum,
    /// From another version of the program.
    #[error(
        "the ticket has version {0}, this program reads version {VERSION}: use the same version everywhere"
    )]
    Version(u8),
    /// Well copied, but nonsense.
    #[error("the ticket's content is wrong: {0}")]
    Content(String),
}

const PREFIX: &str = "shoal1";
const VERSION: u8 = 1;
/// Bytes of the hash that end a ticket: enough to notice a slip of a person, not meant against an attacker.
const CHECK_BYTES: usize = 4;

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![VERSION];
        bytes.extend(wire::to_bytes(self));
        let check = Hash::of(&bytes);
        bytes.extend_from_slice(&check.0[..CHECK_BYTES]);
        f.write_str(PREFIX)?;
        f.write_str(&BASE32_NOPAD.encode(&bytes).to_lowercase())
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    /// Reads a ticket; blanks around it and the case of its letters do not matter.
    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        if text.len() > limits::TICKET_BYTES {
            return Err(TicketError::TooLong(text.chars().count()));
        }
        let lower = text.to_ascii_lowercase();
        let rest = lower.strip_prefix(PREFIX).ok_or(TicketError::Prefix)?;
        for (position, found) in text.chars().enumerate().skip(PREFIX.len()) {
            if !matches!(found.to_ascii_lowercase(), 'a'..='z' | '2'..='7') {
                return Err(TicketError::Character { position: position + 1, found });
            }
        }
        let bytes =
            BASE32_NOPAD.decode(rest.to_ascii_uppercase().as_bytes()).map_err(|_| TicketError::CheckSum)?;
        let at = bytes.len().checked_sub(CHECK_BYTES).ok_or(TicketError::CheckSum)?;
        let (content, check) = bytes.split_at(at);
        if Hash::of(content).0[..CHECK_BYTES] != *check {
            return Err(TicketError::CheckSum);
        }
        match content.split_first() {
            Some((&VERSION, body)) => {
                wire::from_bytes(body).map_err(|error| TicketError::Content(error.to_string()))
            }
            Some((&version, _)) => Err(TicketError::Version(version)),
            None => Err(TicketError::CheckSum),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ticket() -> Ticket {
        let direct = vec!["127.0.0.1:4433".parse().unwrap(), "[::1]:4433".parse().unwrap()];
        Ticket {
            run: RunId([7; 32]),
            node: NodeId([9; 32]),
            address: PeerAddress::new(direct, Some("http://192.0.2.1:3340")).unwrap(),
        }
    }

    #[test]
    fn a_ticket_comes_back_from_its_text() {
        let text = ticket().to_string();
        assert!(text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
        assert_eq!(text.parse(), Ok(ticket()));
        assert_eq!(format!("  {}\n", text.to_uppercase()).parse(), Ok(ticket()));
    }

    #[test]
    fn golden_text_of_a_ticket() {
        assert_eq!(Hash::of(ticket().to_string().as_bytes()).short(), "faee95234d");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let text = ticket().to_string();
        assert_eq!("http://x".parse::<Ticket>(), Err(TicketError::Prefix));
        assert_eq!("".parse::<Ticket>(), Err(TicketError::Prefix));
        assert_eq!(text[..text.len() - 3].parse::<Ticket>(), Err(TicketError::CheckSum));
        assert_eq!(PREFIX.parse::<Ticket>(), Err(TicketError::CheckSum));
        let hole = format!("{} {}", &text[..20], &text[20..]);
        assert_eq!(hole.parse::<Ticket>(), Err(TicketError::Character { position: 21, found: ' ' }));
        assert_eq!("a".repeat(5000).parse::<Ticket>(), Err(TicketError::TooLong(5000)));
        let mut bytes = vec![2, 1, 2];
        let check = Hash::of(&bytes);
        bytes.extend_from_slice(&check.0[..CHECK_BYTES]);
        let newer = format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes));
        assert_eq!(newer.parse::<Ticket>(), Err(TicketError::Version(2)));
        let mut bytes = vec![VERSION, 1, 2];
        let check = Hash::of(&bytes);
        bytes.extend_from_slice(&check.0[..CHECK_BYTES]);
        let short = format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes));
        assert!(matches!(short.parse::<Ticket>(), Err(TicketError::Content(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_without_a_panic(text in any::<String>(), tail in "[a-z2-7]{0,200}") {
            prop_assert!(text.parse::<Ticket>().is_err());
            let tail = format!("{PREFIX}{tail}");
            prop_assert!(tail.parse::<Ticket>().is_err());
        }

        #[test]
        fn a_changed_character_is_noticed(position in 0usize..100, other in "[a-z2-7]") {
            let text = ticket().to_string();
            let position = PREFIX.len() + position % (text.len() - PREFIX.len());
            let changed = format!("{}{other}{}", &text[..position], &text[position + 1..]);
            prop_assume!(changed != text);
            prop_assert!(changed.parse::<Ticket>().is_err());
        }

        #[test]
        fn any_content_is_refused_or_has_one_text(bytes in proptest::collection::vec(any::<u8>(), 0..150)) {
            let mut bytes = [vec![VERSION], bytes].concat();
            let check = Hash::of(&bytes);
            bytes.extend_from_slice(&check.0[..CHECK_BYTES]);
            let text = format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_lowercase());
            if let Ok(ticket) = text.parse::<Ticket>() {
                prop_assert_eq!(ticket.to_string().parse(), Ok(ticket));
            }
        }
    }
}

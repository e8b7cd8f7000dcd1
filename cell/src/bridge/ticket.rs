//! Tickets: what a host needs to become part of a cell, in one line of text.
//!
//! `cellhost1` and the Base58 of CBOR: who leads, where it is reached, and a secret. Nucleus knows the secret's hash. Whoever has the
//! ticket can use it, once: it is to be handed over as a password would be.

use minicbor::{Decode, Encode};
use protocol::{Hash, HostId, Problem, ProblemKind, codec};
use zeroize::Zeroizing;

const PREFIX: &str = "cellhost1";

/// A ticket.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Ticket {
    /// The key of the host that leads: no other one is believed.
    #[n(0)]
    pub(super) lead: HostId,
    /// Where it is reached.
    #[n(1)]
    pub(super) addresses: Vec<String>,
    /// Shown once.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub(super) secret: [u8; 32],
}

/// What Nucleus knows of a ticket's secret.
pub(super) fn hash_of(secret: &[u8; 32]) -> Hash {
    let mut text = Zeroizing::new(b"celluler/ticket/1\0".to_vec());
    text.extend_from_slice(secret);
    Hash::of(&text)
}

impl Ticket {
    pub(super) fn to_text(&self) -> String {
        format!("{PREFIX}{}", bs58::encode(codec::encode(self)).into_string())
    }

    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let bad = || {
            Problem::new(ProblemKind::Invalid, "bridge.bad_ticket", "this is no ticket of a cell")
                .hint(format!("one begins with {PREFIX}; cell host invite makes one"))
        };
        let digits = text.trim().strip_prefix(PREFIX).ok_or_else(bad)?;
        let bytes = bs58::decode(digits).into_vec().map_err(|_| bad())?;
        codec::decode(&bytes).map_err(|_| bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_reads_back_and_what_is_none_is_refused() {
        let ticket = Ticket {
            lead: HostId::from_bytes([7; 32]),
            addresses: vec!["/ip4/127.0.0.1/tcp/7403".to_owned()],
            secret: [9; 32],
        };
        let text = ticket.to_text();
        assert!(Ticket::parse(&format!(" {text}\n")).is_ok_and(|read| read == ticket));
        for bad in ["", PREFIX, &text[1..], &text[..text.len() - 3], "cellhost1not!base58"] {
            assert_eq!(Ticket::parse(bad).err().expect("refused").code, "bridge.bad_ticket", "{bad}");
        }
    }
}

//! Peer ids and multiaddresses.

use libp2p::identity::{PublicKey, ed25519};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use protocol::{CellId, Problem, ProblemKind};

/// The identity multihash's code: the digest is the key itself.
const IDENTITY_MULTIHASH: u64 = 0;

/// The libp2p peer id of a cell, as text. Empty for a cell id that is no curve point.
pub fn peer_id_of(cell: &CellId) -> String {
    peer_id(cell).map(|peer| peer.to_string()).unwrap_or_default()
}

pub(super) fn peer_id(cell: &CellId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(cell.as_bytes()).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// The cell of a peer id; `None` if it is not made of an ed25519 key.
pub fn cell_of(peer: &PeerId) -> Option<CellId> {
    let hash = peer.as_ref();
    if hash.code() != IDENTITY_MULTIHASH {
        return None;
    }
    let key = PublicKey::try_decode_protobuf(hash.digest()).ok()?;
    Some(CellId::from_bytes(key.try_into_ed25519().ok()?.to_bytes()))
}

/// Splits a multiaddress that ends in `/p2p/PEER_ID` into the cell and the whole address.
///
/// # Errors
///
/// `network.bad_address` with what is missing.
pub fn parse_peer_address(text: &str) -> Result<(CellId, String), Problem> {
    let address = parse(text)?;
    let Some(Protocol::P2p(peer)) = address.iter().last() else {
        return Err(bad(text, "it does not end in /p2p/PEER_ID"));
    };
    let cell = cell_of(&peer).ok_or_else(|| bad(text, "its peer id is not an ed25519 key"))?;
    Ok((cell, address.to_string()))
}

pub(super) fn parse(text: &str) -> Result<Multiaddr, Problem> {
    text.parse().map_err(|error| bad(text, &format!("{error}")))
}

pub(super) fn bad(text: &str, why: &str) -> Problem {
    let shown: String = text.chars().take(120).collect();
    Problem::new(
        ProblemKind::Invalid,
        "network.bad_address",
        format!("{shown:?} is not an address of a peer: {why}"),
    )
    .hint("one looks like /ip4/192.0.2.1/tcp/7401/p2p/12D3Koo… ; cell status shows a cell's own")
}

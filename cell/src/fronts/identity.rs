//! Identity fronts: what needs the cell's key, or the network.

use std::sync::Arc;

use ::identity::{proof, seal};
use protocol::identity::{
    AddContactRequest, AddPeer, AddPeerRequest, Attest, AttestRequest, AttestationView, CheckProof, Contact,
    IdentityView, Open, Opened, PeerView, Peers, Prove, RemovePeer, Seal, SealRequest, Sealed, Show, Sign,
    Signed, Verdict, Verified, Verify, VerifyRequest, Who,
};
use protocol::messages::SharedRequest;
use protocol::receipt::InteractionProof;
use protocol::shared::{Empty, ListRequest, Page};
use protocol::signing::{self, Signature};
use protocol::{CellId, Hash, Problem, ProblemKind};

use super::front;
use crate::actor::now_ms;
use crate::network::{parse_peer_address, peer_id_of};
use crate::node::World;

pub(super) fn install(world: &Arc<World>) {
    front::<Show, _, _>(world, |world, _, _| async move {
        Ok(IdentityView {
            cell: world.cell,
            name: world.settings.cell.name.clone(),
            peer_id: peer_id_of(&world.cell),
            genesis: world.genesis.hash(),
        })
    });
    front::<Sign, _, _>(world, |world, _, request| async move {
        Ok(Signed { cell: world.cell, signature: world.keyring.sign(&text_to_sign(&request.text)) })
    });
    front::<Verify, _, _>(world, |world, _, request| async move { verify(&world, request).await });
    front::<Prove, _, _>(world, |world, _, request| async move { prove(&world, request).await });
    front::<CheckProof, _, _>(
        world,
        |world, _, request| async move { check_proof(&world, request.proof).await },
    );
    front::<Seal, _, _>(world, |world, _, request| async move { seal_text(&world, request).await });
    front::<Open, _, _>(world, |world, _, request| async move { open_text(&world, &request) });
    front::<Attest, _, _>(world, |world, _, request| async move { attest(&world, request).await });
    front::<AddPeer, _, _>(world, |world, _, request| async move { add_peer(&world, request).await });
    front::<RemovePeer, _, _>(world, |world, _, request| async move {
        world.bus.internal().identity().remove_contact(request).await.map(|_| Empty {})
    });
    front::<Peers, _, _>(world, |world, _, _| async move { peers(&world).await });
}

/// What is signed of a text: a domain tag, then its hash.
fn text_to_sign(text: &str) -> Vec<u8> {
    let mut bytes = b"celluler/text/1\0".to_vec();
    bytes.extend_from_slice(Hash::of(text.as_bytes()).as_bytes());
    bytes
}

async fn verify(world: &Arc<World>, request: VerifyRequest) -> Result<Verified, Problem> {
    let cell = world.resolve(&request.who).await?;
    Ok(Verified { valid: signing::verify(&cell, &text_to_sign(&request.text), &request.signature) })
}

async fn prove(world: &Arc<World>, request: Who) -> Result<InteractionProof, Problem> {
    let with = world.resolve(&request.who).await?;
    let shared = world.bus.internal().message().shared(SharedRequest { with }).await?;
    Ok(InteractionProof { prover: world.cell, with, shown: shared.latest })
}

/// A proof between two others is worth its signatures; one with this cell must also be in its journal.
async fn check_proof(world: &Arc<World>, shown: InteractionProof) -> Result<Verdict, Problem> {
    if shown.shown.len() > proof::SHOWN_MAX {
        return Err(Problem::new(
            ProblemKind::Invalid,
            "identity.bad_proof",
            "a proof shows at most 5 messages",
        )
        .hint("make it anew: cell identity prove CELL"));
    }
    let verdict = proof::check(&shown);
    if shown.prover != world.cell && shown.with != world.cell {
        return Ok(verdict);
    }
    let mut known = InteractionProof { shown: Vec::new(), ..shown.clone() };
    for item in &shown.shown {
        if world.bus.internal().message().lookup(protocol::messages::MessageRef { id: item.id }).await.is_ok()
        {
            known.shown.push(item.clone());
        }
    }
    Ok(proof::verdict(known.matching(), verdict.shown))
}

/// Associated data of texts sealed by hand: no message's.
const TEXT_AAD: &[u8] = b"celluler/text";

async fn seal_text(world: &Arc<World>, request: SealRequest) -> Result<Sealed, Problem> {
    let cell = world.resolve(&request.who).await?;
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy)
        .map_err(|error| Problem::new(ProblemKind::Fault, "keys.no_entropy", error.to_string()))?;
    seal::seal(&cell, TEXT_AAD, request.text.as_bytes(), entropy)
        .map(|sealed| Sealed { sealed: hex::encode(sealed) })
}

fn open_text(world: &World, request: &Sealed) -> Result<Opened, Problem> {
    let bad = || {
        Problem::new(ProblemKind::Invalid, "identity.not_openable", "not a sealed text")
            .hint("give the hex that cell identity seal printed")
    };
    let sealed = hex::decode(&request.sealed).map_err(|_| bad())?;
    let plain = seal::open(world.keyring.signing_key(), TEXT_AAD, &sealed)?;
    String::from_utf8(plain).map(|text| Opened { text }).map_err(|_| bad())
}

async fn attest(world: &Arc<World>, request: AttestRequest) -> Result<AttestationView, Problem> {
    let mut statement = AttestationView {
        attester: world.cell,
        subject: world.resolve(&request.who).await?,
        claim: request.claim.to_string(),
        time_ms: now_ms(),
        signature: Signature::from_bytes([0; 64]),
    };
    statement.signature = world.keyring.sign(&::identity::claim_text(&statement));
    world.bus.internal().identity().record_attestation(statement).await
}

/// Durable first; the dialler learns of it by the contact's effect.
async fn add_peer(world: &Arc<World>, request: AddPeerRequest) -> Result<PeerView, Problem> {
    let (cell, address) = parse_peer_address(&request.address)?;
    let request = AddContactRequest {
        cell,
        name: request.name,
        addresses: vec![address.clone()],
        may: None,
        exec: None,
        journals: None,
    };
    let contact = world.bus.internal().identity().add_contact(request).await?;
    world.network().keep(cell, vec![address]).await;
    Ok(view(world, contact))
}

async fn peers(world: &Arc<World>) -> Result<Page<PeerView>, Problem> {
    let mut items = Vec::new();
    let mut list = ListRequest { limit: Some(1_000), cursor: None };
    loop {
        let page = world.bus.internal().identity().contacts(list.clone()).await?;
        items.extend(page.items.into_iter().map(|contact| view(world, contact)));
        match page.next {
            Some(next) => list.cursor = Some(next),
            None => break,
        }
    }
    // Strangers that are connected are shown too: an operator may want to add them.
    for (cell, status) in world.network().peers() {
        if status.connected && !items.iter().any(|peer| peer.cell == cell) {
            items.push(stranger(world, cell));
        }
    }
    Ok(Page { items, next: None })
}

fn stranger(world: &World, cell: CellId) -> PeerView {
    let nobody = Contact {
        cell,
        name: None,
        addresses: Vec::new(),
        may: Vec::new(),
        exec: Vec::new(),
        genesis: None,
        journals: Vec::new(),
    };
    view(world, nobody)
}

fn view(world: &World, contact: Contact) -> PeerView {
    let status = world.network().peer(&contact.cell);
    PeerView {
        cell: contact.cell,
        name: contact.name,
        peer_id: peer_id_of(&contact.cell),
        addresses: contact.addresses,
        connected: status.connected,
        rtt_us: status.rtt_us,
        may: contact.may,
        last_error: status.last_error,
    }
}

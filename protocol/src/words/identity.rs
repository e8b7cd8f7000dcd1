//! Identity: who this cell is, whom it knows, whom it trusts and what they may do.

use minicbor::{Decode, Encode};

use super::shared::{Empty, ListRequest, Page};
use crate::id::{CellId, GenesisHash, Hash};
use crate::message::MessageType;
use crate::receipt::InteractionProof;
use crate::service::Service;
use crate::signing::Signature;

words! {
    /// Adds a contact, or changes the named fields of one.
    #[derive(Eq)]
    #[serde(deny_unknown_fields)]
    pub struct AddContactRequest {
        /// Which cell.
        pub cell: CellId,
        /// A name to use wherever a cell is asked for: 1 to 64 letters, digits, `-`, `_`, `.`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
        /// libp2p multiaddresses to reach it at; added to those known.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub addresses: Vec<String>,
        /// Which types it may send here; CHAT and AUTH for a new contact unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub may: Option<Vec<MessageType>>,
        /// Which actions its EXEC may run here; none for a new contact unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub exec: Option<Vec<String>>,
        /// Which journals it may copy from here; none for a new contact unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub journals: Option<Vec<Service>>,
    }

    /// What a contact may do.
    #[serde(deny_unknown_fields)]
    pub struct SetAccessRequest {
        /// Which contact: a cell id or a contact's name.
        pub who: String,
        /// Which types it may send here.
        pub may: Vec<MessageType>,
        /// Which actions its EXEC may run here.
        #[serde(default)]
        pub exec: Vec<String>,
        /// Which journals it may copy from here: this cell's, and the copies that it keeps of others'.
        #[serde(default)]
        pub journals: Vec<Service>,
    }

    /// Names a cell: by its id or a contact's name.
    #[derive(Eq, Hash)]
    #[serde(deny_unknown_fields)]
    pub struct Who {
        /// A cell id or a contact's name.
        pub who: String,
    }

    /// A contact.
    #[derive(Eq, Encode, Decode)]
    pub struct Contact {
        /// Which cell.
        #[n(0)]
        pub cell: CellId,
        /// Its name here.
        #[n(1)]
        pub name: Option<String>,
        /// Where it was reached.
        #[n(2)]
        pub addresses: Vec<String>,
        /// Which types it may send here.
        #[n(3)]
        pub may: Vec<MessageType>,
        /// Which actions its EXEC may run here.
        #[n(4)]
        pub exec: Vec<String>,
        /// Its network, learnt in the handshake.
        #[n(5)]
        pub genesis: Option<GenesisHash>,
        /// Which journals it may copy from here.
        #[n(6)]
        #[cbor(default)]
        pub journals: Vec<Service>,
    }

    /// What the handshake with a peer showed.
    pub struct LearnRequest {
        /// Which cell.
        pub cell: CellId,
        /// Its network.
        pub genesis: GenesisHash,
        /// Where it is reached.
        pub addresses: Vec<String>,
    }

    /// Asks for a cell's contact entry by id, to decide on its messages.
    pub struct AdmissionRequest {
        /// Which cell.
        pub cell: CellId,
    }

    /// What a cell may do here.
    #[derive(Eq)]
    pub struct Admission {
        /// Whether it is a contact.
        pub contact: bool,
        /// Which types it may send.
        pub may: Vec<MessageType>,
        /// Which actions its EXEC may run.
        pub exec: Vec<String>,
        /// Which journals it may copy.
        pub journals: Vec<Service>,
    }

    /// One check of the proof that came with a peer's messages.
    #[derive(Eq)]
    pub struct ObserveRequest {
        /// Whose.
        pub cell: CellId,
        /// How many shared messages it showed.
        pub shown: u32,
        /// How many of them are in this cell's journal with a receipt.
        pub matching: u32,
        /// How many messages the two share, by this cell's journal.
        pub shared: u64,
    }

    /// Trust in a cell.
    #[derive(Eq)]
    pub struct TrustView {
        /// Whose.
        pub cell: CellId,
        /// Its name here.
        pub name: Option<String>,
        /// Trust now, in parts per million, after decay; null until the history is long enough.
        pub trust_ppm: Option<u32>,
        /// The confidence of the last proof, in parts per million.
        pub confidence_ppm: u32,
        /// Whether the last proof passed (0.8).
        pub verified: bool,
        /// Messages the two share.
        pub shared: u64,
        /// How many shared messages it takes before trust counts.
        pub shared_min: u64,
        /// When the trust last changed.
        pub updated_ms: u64,
    }

    /// Asks for a challenge to a cell that wants a session.
    pub struct ChallengeRequest {
        /// Which cell.
        pub cell: CellId,
    }

    /// A challenge: used once.
    pub struct Challenge {
        /// 64 hex digits.
        pub nonce: Hash,
    }

    /// A challenge that came back signed.
    pub struct OpenSessionRequest {
        /// Which cell.
        pub cell: CellId,
        /// The nonce it signed.
        pub nonce: Hash,
    }

    /// A session that was opened. The bearer is shown once and kept only as a hash.
    pub struct OpenedSession {
        /// The bearer token.
        pub bearer: String,
        /// When it ends.
        pub expires_ms: u64,
    }

    /// A session without its secret.
    pub struct SessionView {
        /// The other cell.
        pub cell: CellId,
        /// When it was opened.
        pub opened_ms: u64,
        /// When it ends.
        pub expires_ms: u64,
    }

    /// Asks whose session a bearer token is, by its BLAKE3 hash.
    pub struct SessionRequest {
        /// The token's hash.
        pub hash: Hash,
    }

    /// A signed statement about a cell.
    #[derive(Eq, Encode, Decode)]
    pub struct AttestationView {
        /// Who states it.
        #[n(0)]
        pub attester: CellId,
        /// About whom.
        #[n(1)]
        pub subject: CellId,
        /// What is stated, as JSON text.
        #[n(2)]
        pub claim: String,
        /// When, in milliseconds since 1970 (UTC).
        #[n(3)]
        pub time_ms: u64,
        /// Over `"celluler/claim/1\0" || attester || subject || u64 time_ms || hash(claim)`.
        #[n(4)]
        pub signature: Signature,
    }

    /// Asks to attest something about a cell.
    #[serde(deny_unknown_fields)]
    pub struct AttestRequest {
        /// About whom: a cell id or a contact's name.
        pub who: String,
        /// What is stated: any JSON, at most 4 KiB.
        pub claim: serde_json::Value,
    }

    /// Who this cell is.
    pub struct IdentityView {
        /// Its id.
        pub cell: CellId,
        /// Its name.
        pub name: String,
        /// Its libp2p peer id, derived from the same key.
        pub peer_id: String,
        /// Its network.
        pub genesis: GenesisHash,
    }

    /// A text to sign.
    #[serde(deny_unknown_fields)]
    pub struct SignRequest {
        /// The text; what is signed is `"celluler/text/1\0"` and then its hash.
        pub text: String,
    }

    /// A signed text.
    pub struct Signed {
        /// Who signed.
        pub cell: CellId,
        /// The signature.
        pub signature: Signature,
    }

    /// A signature to check.
    #[serde(deny_unknown_fields)]
    pub struct VerifyRequest {
        /// Who is said to have signed: a cell id or a contact's name.
        pub who: String,
        /// The text.
        pub text: String,
        /// The signature.
        pub signature: Signature,
    }

    /// Whether a signature holds.
    #[derive(Copy, Eq)]
    pub struct Verified {
        /// Whether it does.
        pub valid: bool,
    }

    /// A proof to check.
    #[serde(deny_unknown_fields)]
    pub struct CheckProofRequest {
        /// The proof, as `identity.prove` gives it.
        pub proof: InteractionProof,
    }

    /// What a proof is worth.
    #[derive(Copy, Eq)]
    pub struct Verdict {
        /// Messages shown.
        pub shown: u32,
        /// Messages whose counter-signed receipt holds (and that are in this cell's journal, when it is
        /// one of the two).
        pub matching: u32,
        /// matching / shown, in parts per million.
        pub confidence_ppm: u32,
        /// Whether confidence reaches 0.8.
        pub verified: bool,
    }

    /// A text to seal for a cell.
    #[serde(deny_unknown_fields)]
    pub struct SealRequest {
        /// For whom: a cell id or a contact's name.
        pub who: String,
        /// The text.
        pub text: String,
    }

    /// A sealed text.
    #[serde(deny_unknown_fields)]
    pub struct Sealed {
        /// Hex of encapsulated key and ciphertext.
        pub sealed: String,
    }

    /// An opened text.
    pub struct Opened {
        /// The text.
        pub text: String,
    }

    /// A peer to stay connected to.
    #[serde(deny_unknown_fields)]
    pub struct AddPeerRequest {
        /// A multiaddress that ends in `/p2p/PEER_ID`.
        pub address: String,
        /// A name to use wherever a cell is asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
    }

    /// A contact and its connection.
    pub struct PeerView {
        /// Which cell.
        pub cell: CellId,
        /// Its name here.
        pub name: Option<String>,
        /// Its libp2p peer id.
        pub peer_id: String,
        /// Known addresses.
        pub addresses: Vec<String>,
        /// Whether it is connected now.
        pub connected: bool,
        /// The last ping's round trip, in microseconds.
        pub rtt_us: Option<u64>,
        /// Which types it may send here.
        pub may: Vec<MessageType>,
        /// Why the last dial failed, if it did.
        pub last_error: Option<String>,
    }
}

crate::actions! {
    service Identity;
    machine {
        /// Adds a contact or changes one: name, addresses, what it may send and run here.
        AddContact add_contact(AddContactRequest) -> Contact, Command, Admin;
        /// Removes a contact; it is a stranger again.
        RemoveContact remove_contact(Who) -> Contact, Command, Admin;
        /// Sets what a contact may send and run here.
        SetAccess set_access(SetAccessRequest) -> Contact, Command, Admin;
        /// The contacts.
        Contacts contacts(ListRequest) -> Page<Contact>, Query, Read;
        /// One contact by id or name.
        Resolve resolve(Who) -> Contact, Query, Read, cached;
        /// Records what a handshake showed, if it is news about a contact.
        Learn learn(LearnRequest) -> Empty, Command, Internal;
        /// What a cell may do here.
        Admit admit(AdmissionRequest) -> Admission, Query, Internal;
        /// Folds one proof check into the trust in a cell.
        Observe observe(ObserveRequest) -> Empty, Command, Internal;
        /// Trust in the cells this one has met, by interaction proofs.
        Trust trust(ListRequest) -> Page<TrustView>, Query, Read;
        /// Trust in one cell.
        TrustIn trust_in(Who) -> TrustView, Query, Read;
        /// Makes a challenge for a cell that asks for a session.
        IssueChallenge challenge(ChallengeRequest) -> Challenge, Command, Internal;
        /// Opens a session for a cell that signed its challenge.
        OpenSession open_session(OpenSessionRequest) -> OpenedSession, Command, Internal;
        /// The open sessions.
        Tokens tokens(ListRequest) -> Page<SessionView>, Query, Admin;
        /// Whose session a bearer is.
        Session session(SessionRequest) -> SessionView, Query, Internal;
        /// Closes every session of a cell.
        CloseSessions close_sessions(Who) -> Empty, Command, Admin;
        /// Records a signed statement about a cell.
        RecordAttestation record_attestation(AttestationView) -> AttestationView, Command, Internal;
        /// The recorded statements, newest first.
        Attestations attestations(ListRequest) -> Page<AttestationView>, Query, Read;
    }
    front {
        /// Who this cell is.
        Show show(Empty) -> IdentityView, Query, Read;
        /// Signs a text with the cell's key.
        Sign sign(SignRequest) -> Signed, Query, Admin;
        /// Checks a signature over a text.
        Verify verify(VerifyRequest) -> Verified, Query, Read;
        /// Makes an interaction proof: the latest messages shared with a cell, with their receipts.
        Prove prove(Who) -> InteractionProof, Query, Read;
        /// Checks an interaction proof, and against this cell's own journal when it is one of the two.
        CheckProof check_proof(CheckProofRequest) -> Verdict, Query, Read;
        /// Seals a text for a cell (HPKE).
        Seal seal(SealRequest) -> Sealed, Query, Write;
        /// Opens a text sealed for this cell.
        Open open(Sealed) -> Opened, Query, Admin;
        /// Signs and records a statement about a cell.
        Attest attest(AttestRequest) -> AttestationView, Command, Admin;
        /// Adds a peer: durable before it returns, a contact who may CHAT, redialled at every start.
        AddPeer add_peer(AddPeerRequest) -> PeerView, Command, Admin;
        /// Removes a peer: disconnects it and forgets it as a contact.
        RemovePeer remove_peer(Who) -> Empty, Command, Admin;
        /// The peers and how they are connected.
        Peers peers(Empty) -> Page<PeerView>, Query, Read;
    }
}

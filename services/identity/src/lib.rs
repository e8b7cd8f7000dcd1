//! The Identity service: contacts and what they may do, trust, sessions, statements. A pure machine;
//! with it the pure functions for interaction proofs ([`proof`]), trust ([`trust`]) and sealing ([`seal`]).
//!
//! Rules:
//!
//! - A stranger may do nothing that a contact's access list does not name.
//! - Trust moves only by observations of interaction proofs, and decays with time.
//! - A challenge is used once; a session's bearer is shown once and kept as a hash.
//! - The cell's key is not here: signing happens at the edge, with the same pure functions.

mod contacts;
pub mod proof;
mod record;
pub mod seal;
mod sessions;
mod tables;
pub mod trust;

use machine::{At, Context, DecisionOf, Fault, Machine, Owed, Read, Write, answer, commit, refuse};
use protocol::identity::{Answer, AttestationView, Request, Words};
use protocol::shared::{Empty, ListRequest};
use protocol::{CellId, Event, Problem};
use serde_json::json;

pub use record::Record;
pub use tables::Observed;
use tables::{ATTESTATIONS, CHALLENGES, CONTACTS, NAMES, SESSIONS, SessionRow, TRUST};

/// The longest claim, in bytes of JSON text.
pub const CLAIM_BYTES_MAX: usize = 4096;

protocol::refusals! {
    /// What Identity refuses.
    pub enum Refusal {
        UnknownContact { who: String } => NotFound, "identity.unknown_contact",
            ("there is no contact {who:?}"), "cell peers lists them; cell peers add MULTIADDR makes one";
        BadName { name: String } => Invalid, "identity.bad_name",
            ("{name:?} is not a contact's name"), "1 to 64 letters, digits, '-', '_' or '.', and not a did";
        NameTaken { name: String } => Conflict, "identity.name_taken",
            ("another contact is named {name:?}"), "choose another name";
        Oneself => Invalid, "identity.self",
            ("a cell is not a contact of its own"), "name another cell";
        TooManyContacts => Busy, "identity.too_many_contacts",
            ("there are as many contacts as there can be"), "remove one: cell peers remove CELL";
        BadAddress { address: String } => Invalid, "identity.bad_address",
            ("{address:?} is not a multiaddress"), "one looks like /ip4/192.0.2.1/tcp/7401";
        TooManyAddresses => Invalid, "identity.too_many_addresses",
            ("a contact has at most 16 addresses"), "name fewer";
        UnknownAction { action: String } => Invalid, "identity.unknown_action",
            ("there is no action {action:?} that a contact could run"), "GET /openapi.json lists the actions";
        BadChallenge => Denied, "identity.bad_challenge",
            ("the nonce is not the open challenge of that cell"), "ask for a new session: send an AUTH message";
        ChallengeExpired => Denied, "identity.challenge_expired",
            ("the challenge has expired"), "ask for a new session: send an AUTH message";
        BadSession => Unauthenticated, "identity.bad_session",
            ("the token belongs to no session"), "open one: cell message send --type AUTH";
        SessionExpired => Unauthenticated, "identity.session_expired",
            ("the session has expired"), "open a new one: cell message send --type AUTH";
        BadAttestation => Invalid, "identity.bad_attestation",
            ("the statement's signature does not hold"), "ask the attester for it again";
        ClaimTooLarge => TooLarge, "identity.claim_too_large",
            ("a claim has at most 4096 bytes"), "state less, or a hash of it";
        BadCursor => Invalid, "identity.bad_cursor",
            ("the cursor was not made by this list"), "send back the \"next\" of the page before";
    }
}

/// Settings of the Identity machine.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long trust takes to fall by half without contact.
    pub half_life_ms: u64,
    /// Shared messages before trust counts.
    pub shared_min: u64,
    /// How long a session lives.
    pub session_ttl_ms: u64,
    /// How long a challenge waits for its response.
    pub challenge_ttl_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            half_life_ms: 30 * 24 * 3600 * 1000,
            shared_min: 5,
            session_ttl_ms: 3600 * 1000,
            challenge_ttl_ms: 60 * 1000,
        }
    }
}

/// The Identity machine of one cell.
#[derive(Clone, Copy, Debug)]
pub struct IdentityMachine {
    /// Whose.
    pub cell: CellId,
    /// Its settings.
    pub settings: Settings,
}

/// What Identity asks of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub enum Effect {
    /// A contact came, changed or went: dial, or hang up.
    #[n(0)]
    ContactChanged(#[n(0)] CellId),
}

type Decided = Result<DecisionOf<IdentityMachine>, Fault>;

impl Machine for IdentityMachine {
    type Words = Words;
    type Record = Record;
    type Effect = Effect;

    fn decide(&self, view: &dyn Read, context: &Context, request: Request) -> Decided {
        match request {
            Request::AddContact(asked) => contacts::add(self, view, asked),
            Request::RemoveContact(who) => contacts::remove(view, &who.who),
            Request::SetAccess(asked) => contacts::set_access(view, asked),
            Request::Contacts(list) => contacts::list(view, &list),
            Request::Resolve(who) => match contacts::find(view, &who.who)? {
                Ok(contact) => answer(Answer::Resolve(contact)),
                Err(refusal) => refuse(refusal),
            },
            Request::Learn(asked) => contacts::learn(view, asked),
            Request::Admit(asked) => contacts::admit(view, &asked.cell),
            Request::Observe(asked) => trust::observe(self, view, context, &asked),
            Request::Trust(list) => trust::list(self, view, context, &list),
            Request::TrustIn(who) => trust::of_one(self, view, context, &who.who),
            Request::IssueChallenge(asked) => sessions::challenge(self, context, asked.cell),
            Request::OpenSession(asked) => sessions::open(self, view, context, &asked),
            Request::Tokens(list) => sessions::list(view, context, &list),
            Request::Session(asked) => sessions::of_bearer(view, context, &asked.hash),
            Request::CloseSessions(who) => match contacts::cell_of(view, &who.who)? {
                Ok(cell) => commit(vec![Record::SessionsClosed { cell }], Answer::CloseSessions(Empty {})),
                Err(refusal) => refuse(refusal),
            },
            Request::RecordAttestation(statement) => record_attestation(statement),
            Request::Attestations(list) => attestations(view, &list),
        }
    }

    fn apply(&self, view: &mut dyn Write, at: At, record: &Record) -> Result<Vec<Effect>, Fault> {
        match record {
            Record::ContactSet { contact } => {
                if let Some(old) = CONTACTS.get(view, &contact.cell)?
                    && let Some(name) = old.name
                {
                    NAMES.delete(view, &name);
                }
                if let Some(name) = &contact.name {
                    NAMES.put(view, name, &contact.cell);
                }
                CONTACTS.put(view, &contact.cell, contact);
                return Ok(vec![Effect::ContactChanged(contact.cell)]);
            }
            Record::ContactRemoved { cell } => {
                if let Some(name) = CONTACTS.get(view, cell)?.and_then(|old| old.name) {
                    NAMES.delete(view, &name);
                }
                CONTACTS.delete(view, cell);
                return Ok(vec![Effect::ContactChanged(*cell)]);
            }
            Record::Observed { cell, observed } => TRUST.put(view, cell, observed),
            Record::Challenged { cell, nonce_hash, expires_ms } => {
                CHALLENGES.put(view, cell, &(*nonce_hash, *expires_ms));
            }
            Record::SessionOpened { cell, hash, expires_ms } => {
                CHALLENGES.delete(view, cell);
                SESSIONS.put(
                    view,
                    hash,
                    &SessionRow { cell: *cell, opened_ms: at.time_ms, expires_ms: *expires_ms },
                );
            }
            Record::SessionsClosed { cell } => sessions::close(view, cell)?,
            Record::Attested { statement } => ATTESTATIONS.put(view, &at.index, statement),
        }
        Ok(Vec::new())
    }

    fn events(at: At, record: &Record) -> Vec<Event> {
        let (name, data) = match record {
            Record::ContactSet { contact } => {
                ("identity.contact_added", json!({ "cell": contact.cell, "name": contact.name }))
            }
            Record::ContactRemoved { cell } => ("identity.contact_removed", json!({ "cell": cell })),
            Record::Observed { cell, observed } => (
                "identity.trust_changed",
                json!({
                    "cell": cell, "trust_ppm": observed.trust_ppm, "before_ppm": observed.before_ppm,
                    "confidence_ppm": observed.confidence_ppm, "shared": observed.shared,
                }),
            ),
            Record::Challenged { .. } => return Vec::new(),
            Record::SessionOpened { cell, expires_ms, .. } => {
                ("identity.session_opened", json!({ "cell": cell, "expires_ms": expires_ms }))
            }
            Record::SessionsClosed { cell } => ("identity.session_closed", json!({ "cell": cell })),
            Record::Attested { statement } => {
                ("identity.attested", json!({ "attester": statement.attester, "subject": statement.subject }))
            }
        };
        let service = protocol::Service::Identity;
        vec![Event { event: name.to_owned(), service, index: at.index, time_ms: at.time_ms, data }]
    }

    fn owed(&self, view: &dyn Read) -> Result<Vec<Owed<Effect>>, Fault> {
        let dial = |cell| Owed { index: 0, ordinal: 0, effect: Effect::ContactChanged(cell) };
        CONTACTS.scan(view, &(), None, false).map(|row| row.map(|(cell, _)| dial(cell))).collect()
    }
}

/// The bytes that a statement's signature covers.
pub fn claim_text(statement: &AttestationView) -> Vec<u8> {
    let mut text = b"celluler/claim/1\0".to_vec();
    text.extend_from_slice(statement.attester.as_bytes());
    text.extend_from_slice(statement.subject.as_bytes());
    text.extend_from_slice(&statement.time_ms.to_le_bytes());
    text.extend_from_slice(protocol::Hash::of(statement.claim.as_bytes()).as_bytes());
    text
}

fn record_attestation(statement: AttestationView) -> Decided {
    if statement.claim.len() > CLAIM_BYTES_MAX {
        return refuse(Refusal::ClaimTooLarge);
    }
    if !protocol::signing::verify(&statement.attester, &claim_text(&statement), &statement.signature) {
        return refuse(Refusal::BadAttestation);
    }
    let answer = Answer::RecordAttestation(statement.clone());
    commit(vec![Record::Attested { statement }], answer)
}

fn attestations(view: &dyn Read, list: &ListRequest) -> Decided {
    let after: Result<Option<u64>, _> = list.cursor.as_ref().map(|cursor| cursor.parse()).transpose();
    let Ok(after) = after else { return refuse(Refusal::BadCursor) };
    let rows = ATTESTATIONS.scan(view, &(), after.as_ref(), true);
    answer(Answer::Attestations(machine::page::collect(rows, list.limit(), |(index, it)| {
        (it, index.to_string())
    })?))
}

/// Fresh bytes in a domain of their own.
fn derive(domain: &str, entropy: &[u8; 32]) -> protocol::Hash {
    let mut text = domain.as_bytes().to_vec();
    text.push(0);
    text.extend_from_slice(entropy);
    protocol::Hash::of(&text)
}

/// A list's cursor as a cell id.
fn cell_cursor(list: &ListRequest) -> Result<Option<CellId>, Problem> {
    list.cursor.as_ref().map(|cursor| cursor.parse().map_err(|_| Refusal::BadCursor.into())).transpose()
}

//! The Nucleus service: manifest, grants, tokens, configuration versions, audit. A pure machine.
//!
//! Rules:
//!
//! - Entry 0 is the manifest; everything else is refused before it is there.
//! - A grant's epoch rises when the writer of a journal changes, and never falls.
//! - A token's secret is shown once; only its BLAKE3 hash is journaled.
//! - The last admin token that never expires cannot be revoked: nobody may lock themselves out.
//! - An invitation admits one host, before it expires; only the hash of its secret is journaled. A key that was removed is admitted no more.
//! - A life that begins with a restore begins on one host: those of the life before have its journals, and join anew if they are to.
//! - A journal is granted to a host of the cell alone, and a host that holds one cannot be removed.
//! - The manifest names the key that signs each journal now.

mod hosts;
mod record;
mod tables;

use machine::{At, Context, DecisionOf, Fault, Machine, Owed, Read, Write, answer, commit, refuse};
use protocol::nucleus::{
    Answer, AuditEntry, AuditRequest, AuthoriseRequest, Authorised, ConfigVersion, ConfigureRequest,
    CreateTokenRequest, CreatedToken, JournalKey, Manifest, Request, RestoredRequest, TokenName, TokenView,
    Words,
};
use protocol::shared::{Empty, ListRequest, Page};
use protocol::{Access, Event, Hash, Problem, ProblemKind};
use serde_json::json;

pub use hosts::{FIRST_HOST, HOSTS_MAX};
pub use record::Record;
use tables::{
    AUDIT, CONFIGS, HOSTS, INVITATIONS, LEADERSHIPS, MANIFEST, REMOVED, ROSTER_NUMBER, TOKENS,
    TOKENS_BY_HASH, TokenRow,
};

/// The longest life of a token, in seconds: ten years.
const TOKEN_TTL_S_MAX: u64 = 10 * 365 * 24 * 3600;
/// The longest name of a token or a host, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// The longest field of an audit line, in bytes.
const AUDIT_BYTES_MAX: usize = 256;

protocol::refusals! {
    /// What Nucleus refuses.
    pub enum Refusal {
        NotInitialised => Unavailable, "nucleus.not_initialised",
            ("the cell has no manifest"), "cell init makes one";
        Initialised => Conflict, "nucleus.initialised",
            ("the cell has a manifest already"), "cell status shows it";
        BadTokenName { name: String } => Invalid, "nucleus.bad_token_name",
            ("{name:?} is not a token name"), "1 to 64 letters, digits, '-', '_' or '.'";
        BadTtl { ttl_s: u64 } => Invalid, "nucleus.bad_ttl",
            ("a token cannot live {ttl_s} seconds"), "from 1 second to ten years";
        TokenExists { name: String } => Conflict, "nucleus.token_exists",
            ("there is a token named {name:?}"), "choose another name, or revoke that one: cell token revoke NAME";
        UnknownToken { name: String } => NotFound, "nucleus.unknown_token",
            ("there is no token named {name:?}"), "cell token list shows them";
        BadHostName { name: String } => Invalid, "nucleus.bad_host_name",
            ("{name:?} is no name of a host"), "1 to 64 letters, digits, '-', '_' or '.'";
        HostExists { name: String } => Conflict, "nucleus.host_exists",
            ("there is a host named {name:?}, with another key"), "choose another name: cell host join TICKET --name NAME";
        UnknownHost { name: String } => NotFound, "nucleus.unknown_host",
            ("there is no host named {name:?}"), "cell hosts shows them";
        BadTicket => Denied, "nucleus.bad_ticket",
            ("the ticket is not one of this cell's"), "cell host invite makes one";
        TicketExpired => Denied, "nucleus.ticket_expired",
            ("the ticket has expired"), "cell host invite makes another one";
        TicketUsed => Denied, "nucleus.ticket_used",
            ("the ticket was used by another host"), "each host needs a ticket of its own: cell host invite";
        HostRevoked => Denied, "nucleus.host_revoked",
            ("a host with this key was removed from the cell"), "join anew, in another folder, with another ticket";
        HostHoldsJournal { name: String, service: protocol::Service } => Conflict, "nucleus.host_holds_journal",
            ("the host {name} writes the journal of {service}"), "move it first: cell service move SERVICE --to HOST";
        TooManyHosts => Busy, "nucleus.too_many_hosts",
            ("the cell has 32 hosts, or 32 invitations that may be used"), "remove one: cell host remove NAME";
        LastAdmin => Conflict, "nucleus.last_admin",
            ("it is the last admin token that does not expire"), "create another one first: cell token create NAME --role admin";
        BadToken => Unauthenticated, "nucleus.bad_token",
            ("the token is not one of this cell's"), "the first admin token lies in DIR/admin.token; cell token create makes others";
        TokenExpired { name: String } => Unauthenticated, "nucleus.token_expired",
            ("the token {name:?} has expired"), "ask an admin for a new one: cell token create";
        TokenRevoked { name: String } => Unauthenticated, "nucleus.token_revoked",
            ("the token {name:?} was revoked"), "ask an admin for a new one: cell token create";
        NotRestored => Conflict, "nucleus.not_restored",
            ("the journals do not follow those that the manifest names"), "restore from the newest backup: cell restore BACKUP --dir DIR";
        BadCursor => Invalid, "nucleus.bad_cursor",
            ("the cursor was not made by this list"), "send back the \"next\" of the page before";
    }
}

/// The Nucleus machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct NucleusMachine;

/// The hash a token is kept as.
pub fn hash_token(token: &str) -> Hash {
    Hash::of(token.as_bytes())
}

type Decided = Result<DecisionOf<NucleusMachine>, Fault>;

impl Machine for NucleusMachine {
    type Words = Words;
    type Record = Record;
    type Effect = std::convert::Infallible;

    /// 1: which hosts were given which key.
    const LAYOUT: u32 = 1;

    fn decide(&self, view: &dyn Read, context: &Context, request: Request) -> Decided {
        let manifest = MANIFEST.get(view, &())?;
        match request {
            Request::Initialise(_) if manifest.is_some() => refuse(Refusal::Initialised),
            Request::Initialise(new) => {
                commit(vec![Record::Initialised { manifest: new }], Answer::Initialise(Empty {}))
            }
            _ if manifest.is_none() => refuse(Refusal::NotInitialised),
            Request::GetManifest(Empty {}) => match manifest {
                Some(manifest) => answer(Answer::GetManifest(manifest)),
                None => refuse(Refusal::NotInitialised),
            },
            Request::Restored(asked) => restored(manifest, asked),
            Request::Grant(asked) => hosts::grant(view, asked),
            Request::Invite(asked) => hosts::invite(view, context, &asked),
            Request::AdmitHost(asked) => hosts::admit(view, context, asked),
            Request::FirstHost(asked) => hosts::first(view, asked.host),
            Request::SettleHost(asked) => hosts::settle(view, &asked.host),
            Request::DropHost(asked) => hosts::drop_host(view, &asked.host),
            Request::GetRoster(Empty {}) => answer(Answer::GetRoster(hosts::roster(view)?)),
            Request::Configure(asked) => configure(view, asked),
            Request::Config(list) => configs(view, &list),
            Request::CreateToken(asked) => create_token(view, context, asked),
            Request::RevokeToken(TokenName { name }) => revoke_token(view, name),
            Request::Tokens(list) => tokens(view, &list),
            Request::Authorise(asked) => authorise(view, context, &asked),
            Request::Audit(asked) => commit(vec![audited(asked)], Answer::Audit(Empty {})),
            Request::AuditLog(list) => audit_log(view, &list),
        }
    }

    fn apply(&self, view: &mut dyn Write, at: At, record: &Record) -> Result<Vec<Self::Effect>, Fault> {
        match record {
            Record::Initialised { manifest } => MANIFEST.put(view, &(), manifest),
            Record::Restored { journals, .. } => {
                if let Some(manifest) = MANIFEST.get(view, &())? {
                    MANIFEST.put(view, &(), &Manifest { journals: journals.clone(), ..manifest });
                }
                hosts::begin_alone(view)?;
                ROSTER_NUMBER.put(view, &(), &(at.index + 1));
            }
            Record::Granted { service, host, epoch, replicated, takeover, new_key } => {
                hosts::fold_grant(view, (*service, host, *epoch), (*replicated, *takeover), *new_key)?;
                ROSTER_NUMBER.put(view, &(), &(at.index + 1));
            }
            Record::HostInvited { secret_hash, expires_ms, may_lead } => {
                INVITATIONS.put(view, secret_hash, &(*expires_ms, None));
                if *may_lead {
                    LEADERSHIPS.put(view, secret_hash, &());
                }
            }
            Record::HostJoined { host, secret_hash } => {
                HOSTS.put(view, &host.name, host);
                ROSTER_NUMBER.put(view, &(), &(at.index + 1));
                if let Some(hash) = secret_hash
                    && let Some((expires_ms, _)) = INVITATIONS.get(view, hash)?
                {
                    INVITATIONS.put(view, hash, &(expires_ms, Some(host.key)));
                }
            }
            Record::HostRemoved { host } => {
                HOSTS.delete(view, &host.name);
                REMOVED.put(view, &host.key, &host.name);
                ROSTER_NUMBER.put(view, &(), &(at.index + 1));
            }
            Record::Configured { version, hash, settings } => {
                CONFIGS.put(view, version, &(*hash, settings.clone(), at.time_ms));
            }
            Record::TokenCreated { name, role, hash, expires_ms } => {
                let row = TokenRow {
                    role: *role,
                    hash: *hash,
                    created_ms: at.time_ms,
                    expires_ms: *expires_ms,
                    revoked: false,
                };
                TOKENS.put(view, name, &row);
                TOKENS_BY_HASH.put(view, hash, name);
            }
            Record::TokenRevoked { name } => {
                if let Some(row) = TOKENS.get(view, name)? {
                    TOKENS.put(view, name, &TokenRow { revoked: true, ..row });
                }
            }
            Record::Audited { caller, action, outcome } => {
                AUDIT.put(view, &at.index, &(at.time_ms, caller.clone(), action.clone(), outcome.clone()));
            }
        }
        Ok(Vec::new())
    }

    fn events(at: At, record: &Record) -> Vec<Event> {
        let (name, data) = match record {
            Record::Initialised { manifest } => ("nucleus.initialised", json!({ "cell": manifest.cell })),
            Record::Restored { generation, .. } => ("nucleus.restored", json!({ "generation": generation })),
            Record::Granted { service, host, epoch, replicated, takeover, new_key } => (
                "nucleus.granted",
                json!({
                    "service": service, "host": host, "epoch": epoch, "replicated": replicated, "takeover": takeover,
                    "new_key": new_key
                }),
            ),
            Record::HostInvited { expires_ms, .. } => {
                ("nucleus.host_invited", json!({ "expires_ms": expires_ms }))
            }
            Record::HostJoined { host, .. } => ("nucleus.host_joined", json!(host)),
            Record::HostRemoved { host } => ("nucleus.host_removed", json!(host)),
            Record::Configured { version, .. } => ("nucleus.configured", json!({ "version": version })),
            Record::TokenCreated { name, role, .. } => {
                ("nucleus.token_created", json!({ "name": name, "role": role }))
            }
            Record::TokenRevoked { name } => ("nucleus.token_revoked", json!({ "name": name })),
            Record::Audited { caller, action, outcome } => {
                ("nucleus.audited", json!({ "caller": caller, "action": action, "outcome": outcome }))
            }
        };
        let service = protocol::Service::Nucleus;
        vec![Event { event: name.to_owned(), service, index: at.index, time_ms: at.time_ms, data }]
    }

    fn owed(&self, _: &dyn Read) -> Result<Vec<Owed<Self::Effect>>, Fault> {
        Ok(Vec::new())
    }
}

/// A life follows the one before, and each of its journals is another one.
fn restored(before: Option<Manifest>, asked: RestoredRequest) -> Decided {
    let RestoredRequest { generation, journals, heads } = asked;
    let before = before.map(|manifest| manifest.journals).unwrap_or_default();
    let follows = |(new, old): (&JournalKey, &JournalKey)| {
        new.service == old.service
            && new.key != old.key
            && new.generation == generation
            && old.generation + 1 == generation
            && heads.iter().any(|head| head.service == old.service && head.key == old.key)
    };
    if journals.len() != before.len() || !journals.iter().zip(&before).all(follows) {
        return refuse(Refusal::NotRestored);
    }
    commit(vec![Record::Restored { generation, journals, heads }], Answer::Restored(Empty {}))
}

fn configure(view: &dyn Read, asked: ConfigureRequest) -> Decided {
    let last = CONFIGS.scan(view, &(), None, true).next().transpose()?;
    let version = match last {
        Some((_, (hash, ..))) if hash == asked.hash => return answer(Answer::Configure(Empty {})),
        Some((version, _)) => version + 1,
        None => 1,
    };
    let record = Record::Configured { version, hash: asked.hash, settings: asked.settings.to_string() };
    commit(vec![record], Answer::Configure(Empty {}))
}

fn configs(view: &dyn Read, list: &ListRequest) -> Decided {
    let Some(after) = number_cursor(list) else { return refuse(Refusal::BadCursor) };
    let rows = CONFIGS.scan(view, &(), after.as_ref(), true);
    let page = machine::page::collect(rows, list.limit(), |(version, (hash, settings, time_ms))| {
        let settings = serde_json::from_str(&settings).unwrap_or_default();
        (ConfigVersion { version, hash, time_ms, settings }, version.to_string())
    })?;
    answer(Answer::Config(page))
}

fn create_token(view: &dyn Read, context: &Context, asked: CreateTokenRequest) -> Decided {
    let CreateTokenRequest { name, role, ttl_s } = asked;
    if !is_name(&name) {
        return refuse(Refusal::BadTokenName { name: name.chars().take(NAME_BYTES_MAX).collect() });
    }
    if role == Access::Internal {
        return refuse(
            Problem::new(ProblemKind::Invalid, "nucleus.bad_role", "there is no role \"internal\"")
                .hint("one of read, write, admin"),
        );
    }
    if let Some(ttl_s) = ttl_s.filter(|ttl_s| !(1..=TOKEN_TTL_S_MAX).contains(ttl_s)) {
        return refuse(Refusal::BadTtl { ttl_s });
    }
    if TOKENS.get(view, &name)?.is_some_and(|row| row.is_live(context.now_ms)) {
        return refuse(Refusal::TokenExists { name });
    }
    let secret = blake3_secret(&context.entropy);
    let token = format!("cell_{secret}");
    let expires_ms = ttl_s.map(|ttl_s| context.now_ms + ttl_s * 1000);
    let record = Record::TokenCreated { name: name.clone(), role, hash: hash_token(&token), expires_ms };
    commit(vec![record], Answer::CreateToken(CreatedToken { token, name, role, expires_ms }))
}

/// Whether a token or a host may be called so.
fn is_name(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(fine)
}

/// 64 hex digits from fresh entropy, in a domain of their own.
fn blake3_secret(entropy: &[u8; 32]) -> String {
    let mut text = b"celluler/token/1\0".to_vec();
    text.extend_from_slice(entropy);
    Hash::of(&text).to_string()
}

fn revoke_token(view: &dyn Read, name: String) -> Decided {
    let Some(row) = TOKENS.get(view, &name)? else {
        return refuse(Refusal::UnknownToken { name: name.chars().take(NAME_BYTES_MAX).collect() });
    };
    let view_of = |revoked| row.view(&name, revoked);
    if row.revoked {
        return answer(Answer::RevokeToken(view_of(true)));
    }
    if row.keeps_the_door_open() {
        let mut others = 0;
        for other in TOKENS.scan(view, &(), None, false) {
            let (other_name, other) = other?;
            others += u32::from(other_name != name && other.keeps_the_door_open());
        }
        if others == 0 {
            return refuse(Refusal::LastAdmin);
        }
    }
    commit(vec![Record::TokenRevoked { name: name.clone() }], Answer::RevokeToken(view_of(true)))
}

fn tokens(view: &dyn Read, list: &ListRequest) -> Decided {
    let rows = TOKENS.scan(view, &(), list.cursor.as_ref(), false);
    let page =
        machine::page::collect(rows, list.limit(), |(name, row)| (row.view(&name, row.revoked), name))?;
    answer(Answer::Tokens(page))
}

fn authorise(view: &dyn Read, context: &Context, asked: &AuthoriseRequest) -> Decided {
    let Some(name) = TOKENS_BY_HASH.get(view, &asked.hash)? else { return refuse(Refusal::BadToken) };
    match TOKENS.get(view, &name)? {
        // A revoked name may have been given to a new token since.
        Some(row) if row.hash != asked.hash || row.revoked => refuse(Refusal::TokenRevoked { name }),
        Some(row) if !row.is_live(context.now_ms) => refuse(Refusal::TokenExpired { name }),
        Some(row) => answer(Answer::Authorise(Authorised { name, role: row.role })),
        None => refuse(Refusal::BadToken),
    }
}

fn audited(asked: AuditRequest) -> Record {
    let cut = |text: String| text.chars().take(AUDIT_BYTES_MAX).collect();
    Record::Audited { caller: cut(asked.caller), action: cut(asked.action), outcome: cut(asked.outcome) }
}

fn audit_log(view: &dyn Read, list: &ListRequest) -> Decided {
    let Some(after) = number_cursor(list) else { return refuse(Refusal::BadCursor) };
    let rows = AUDIT.scan(view, &(), after.as_ref(), true);
    let page: Page<AuditEntry> =
        machine::page::collect(rows, list.limit(), |(index, (time_ms, caller, action, outcome))| {
            (AuditEntry { time_ms, caller, action, outcome }, index.to_string())
        })?;
    answer(Answer::AuditLog(page))
}

/// `None` for a cursor that is no number.
fn number_cursor(list: &ListRequest) -> Option<Option<u64>> {
    list.cursor.as_ref().map(|cursor| cursor.parse()).transpose().ok()
}

impl TokenRow {
    fn is_live(&self, now_ms: u64) -> bool {
        !self.revoked && self.expires_ms.is_none_or(|expires_ms| now_ms < expires_ms)
    }

    fn keeps_the_door_open(&self) -> bool {
        self.role == Access::Admin && !self.revoked && self.expires_ms.is_none()
    }

    fn view(&self, name: &str, revoked: bool) -> TokenView {
        TokenView {
            name: name.to_owned(),
            role: self.role,
            created_ms: self.created_ms,
            expires_ms: self.expires_ms,
            revoked,
        }
    }
}

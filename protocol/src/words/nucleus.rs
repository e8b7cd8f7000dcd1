//! Nucleus: the manifest, grants, tokens, configuration versions, audit, health.

use minicbor::{Decode, Encode};

use super::shared::{Empty, ListRequest, Page};
use super::signal::{BroadcastRequest, EmitRequest, Heard, ListenRequest, Told};
use super::trace::{TraceRef, TraceSummary, TraceView, TracesRequest};
use crate::action::Access;
use crate::event::Event;
use crate::id::{CellId, GenesisHash, Hash, HostId};
use crate::problem::Problem;
use crate::service::Service;

words! {
    /// One service's journal: which key signs it.
    #[derive(Eq, Encode, Decode)]
    pub struct JournalKey {
        /// The service that writes it.
        #[n(0)]
        pub service: Service,
        /// The log's public key, 64 hex digits.
        #[n(1)]
        pub key: Hash,
        /// 0 for the first log of this service; a restore opens the next.
        #[n(2)]
        pub generation: u32,
    }

    /// What the cell is: entry 0 of the Nucleus journal.
    #[derive(Eq, Encode, Decode)]
    pub struct Manifest {
        /// The cell's key.
        #[n(0)]
        pub cell: CellId,
        /// Its name, for people.
        #[n(1)]
        pub name: String,
        /// The network it was made for.
        #[n(2)]
        pub genesis: GenesisHash,
        /// The six journals.
        #[n(3)]
        pub journals: Vec<JournalKey>,
    }

    /// Where a journal ended in the life before.
    #[derive(Eq, Encode, Decode)]
    pub struct JournalHead {
        /// The service that wrote it.
        #[n(0)]
        pub service: Service,
        /// Its public key.
        #[n(1)]
        pub key: Hash,
        /// Its fork.
        #[n(2)]
        pub fork: u64,
        /// Its entries.
        #[n(3)]
        pub length: u64,
        /// What its writer signed for them.
        #[n(4)]
        pub tree_hash: Hash,
    }

    /// Tells that the cell was restored from a backup.
    #[derive(Eq)]
    pub struct RestoredRequest {
        /// Which life begins, from 1.
        pub generation: u32,
        /// The journals of it.
        pub journals: Vec<JournalKey>,
        /// Where those of the life before ended in the backup: what they hold was taken over, entry by entry.
        pub heads: Vec<JournalHead>,
    }

    /// Asks for the right to write a service's journal.
    pub struct GrantRequest {
        /// Which service.
        pub service: Service,
        /// The host that will write, by its name.
        pub host: String,
        /// Whether nothing may leave the service before a replica has it too.
        #[serde(default)]
        pub replicated: bool,
        /// Whether the last writer is lost, and not known to have stopped: the journal goes on in a newer fork.
        #[serde(default)]
        pub takeover: bool,
        /// The public key of the next key pair that signs the journal, if it is signed by another one from now on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub new_key: Option<Hash>,
    }

    /// The configuration a cell started with.
    pub struct ConfigureRequest {
        /// BLAKE3 of the settings in force, as JSON.
        pub hash: Hash,
        /// The settings in force; no secret is among them.
        pub settings: serde_json::Value,
    }

    /// One configuration version.
    pub struct ConfigVersion {
        /// Counts from 1.
        pub version: u64,
        /// BLAKE3 of the settings, as JSON.
        pub hash: Hash,
        /// When it was recorded.
        pub time_ms: u64,
        /// The settings.
        pub settings: serde_json::Value,
    }

    /// Asks for a new token.
    #[serde(deny_unknown_fields)]
    pub struct CreateTokenRequest {
        /// A name to know it by; unique among live tokens; 1 to 64 bytes.
        pub name: String,
        /// What it may do: `read`, `write` or `admin`.
        pub role: Access,
        /// How long it lives, in seconds; for ever when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub ttl_s: Option<u64>,
    }

    /// A new token. Its secret is shown this once.
    pub struct CreatedToken {
        /// The bearer token.
        pub token: String,
        /// Its name.
        pub name: String,
        /// Its role.
        pub role: Access,
        /// When it ends, if it does.
        pub expires_ms: Option<u64>,
    }

    /// Names a token.
    #[serde(deny_unknown_fields)]
    pub struct TokenName {
        /// The token's name.
        pub name: String,
    }

    /// A token without its secret.
    pub struct TokenView {
        /// Its name.
        pub name: String,
        /// Its role.
        pub role: Access,
        /// When it was made.
        pub created_ms: u64,
        /// When it ends, if it does.
        pub expires_ms: Option<u64>,
        /// Whether it was revoked.
        pub revoked: bool,
    }

    /// Asks what a bearer may do, by the BLAKE3 hash of the token.
    pub struct AuthoriseRequest {
        /// The token's hash.
        pub hash: Hash,
    }

    /// What a bearer may do.
    pub struct Authorised {
        /// The token's name.
        pub name: String,
        /// Its role.
        pub role: Access,
    }

    /// One admin action, for the audit.
    pub struct AuditRequest {
        /// Who.
        pub caller: String,
        /// Which action.
        pub action: String,
        /// `ok` or the refusal's code.
        pub outcome: String,
    }

    /// One line of the audit.
    pub struct AuditEntry {
        /// When.
        pub time_ms: u64,
        /// Who.
        pub caller: String,
        /// Which action.
        pub action: String,
        /// `ok` or the refusal's code.
        pub outcome: String,
    }

    /// How a service is.
    #[derive(Copy, Eq)]
    #[serde(rename_all = "lowercase")]
    pub enum Health {
        /// Starting or restarting.
        Starting,
        /// Answering.
        Running,
        /// Met a fault: it answers queries about what was durable, and writes nothing.
        Faulted,
        /// Stopped on purpose.
        Stopped,
    }

    /// One service as it is now.
    pub struct ServiceStatus {
        /// Which.
        pub service: Service,
        /// How it is.
        pub health: Health,
        /// Durable entries in its journal.
        pub entries: u64,
        /// Bytes of those entries.
        pub bytes: u64,
        /// The epoch of its grant.
        pub epoch: u64,
        /// Restarts since the cell started.
        pub restarts: u32,
        /// What it depends on.
        pub depends_on: Vec<Service>,
        /// The host that runs it, by its name.
        #[serde(default)]
        pub host: String,
        /// The host that has everything that was acknowledged as well, and goes on with it when the other one is lost; none where what is
        /// acknowledged is on one disk.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub standby: Option<String>,
    }

    /// The cell as a whole.
    pub struct CellStatus {
        /// Its id.
        pub cell: CellId,
        /// Its name.
        pub name: String,
        /// Its network.
        pub genesis: GenesisHash,
        /// The software's version.
        pub version: String,
        /// Milliseconds since the start.
        pub uptime_ms: u64,
        /// `starting`, `no_peers`, `synced`, `suspended`, `diverged`, `draining`.
        pub readiness: Readiness,
        /// Where HTTP listens.
        pub http: String,
        /// Where peers reach it.
        pub peer_addresses: Vec<String>,
        /// Peers connected now.
        pub peers_connected: u32,
        /// The last finalised block.
        pub block: Option<u64>,
        /// Outgoing messages that wait for delivery.
        pub outbox: u64,
        /// The services.
        pub services: Vec<ServiceStatus>,
    }

    /// Whether the cell is ready, and if not, why.
    #[derive(Eq)]
    #[serde(tag = "state", rename_all = "snake_case")]
    pub enum Readiness {
        /// Services are starting.
        Starting,
        /// The network has other members and none is connected.
        NoPeers,
        /// Behind the network.
        CatchingUp {
            /// Blocks applied here.
            have: u64,
            /// Blocks known to exist.
            target: u64,
        },
        /// Everything that is finalised is applied here.
        Synced {
            /// The state root, 64 hex digits.
            root: String,
        },
        /// Not serving writes.
        Suspended {
            /// The reason.
            why: String,
        },
        /// The state root differs from the network's.
        Diverged {
            /// The evidence in words.
            why: String,
        },
    }

    /// Asks to follow a journal of another cell: to keep a verified copy of it.
    #[derive(Eq)]
    #[serde(deny_unknown_fields)]
    pub struct FollowRequest {
        /// Whose: a cell id or a contact's name.
        pub who: String,
        /// Which.
        pub journal: Service,
        /// The key it must have, 64 hex digits; the one that cell shows unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub key: Option<Hash>,
    }

    /// Asks to follow a journal no longer.
    #[derive(Eq)]
    #[serde(deny_unknown_fields)]
    pub struct UnfollowRequest {
        /// Whose: a cell id or a contact's name.
        pub who: String,
        /// Which.
        pub journal: Service,
        /// Whether to delete the copy as well.
        #[serde(default)]
        pub delete: bool,
    }

    /// How a copy is.
    #[derive(Copy, Eq)]
    #[serde(rename_all = "lowercase")]
    pub enum CopyState {
        /// Its files are opened and checked.
        Opening,
        /// No peer that has the journal is connected.
        Waiting,
        /// Its cell's access list does not let this cell copy it.
        Denied,
        /// Entries are coming.
        Copying,
        /// Everything the sources have is here; what is new comes as it is written.
        Following,
        /// It cannot go on: see its problem.
        Stopped,
        /// It is followed no longer.
        Ended,
    }

    /// A copy of another cell's journal.
    #[derive(Eq)]
    pub struct CopyView {
        /// Whose journal.
        pub cell: CellId,
        /// Which.
        pub journal: Service,
        /// Its key, 64 hex digits.
        pub key: Hash,
        /// How the copy is.
        pub state: CopyState,
        /// The journal's fork, as its key has signed it.
        pub fork: u64,
        /// The journal's entries, as its key has signed it.
        pub length: u64,
        /// The entries that are here, checked.
        pub have: u64,
        /// The damaged entries that were found when the copy was opened, and are fetched again.
        pub healed: u64,
        /// The peers it is copied from now.
        pub sources: u64,
        /// What is in its way.
        pub problem: Option<Problem>,
        /// Where the copy lies.
        pub folder: String,
    }

    /// Records that somebody who knows a secret may become a host.
    #[derive(Eq)]
    pub struct InvitationRequest {
        /// BLAKE3 of the secret.
        pub secret_hash: Hash,
        /// How long it may be used, in seconds.
        pub ttl_s: u64,
        /// Whether whoever uses it may come to lead the cell.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pub may_lead: bool,
    }

    /// Until when an invitation may be used.
    #[derive(Copy, Eq)]
    pub struct Invitation {
        /// Milliseconds since 1970 (UTC).
        pub expires_ms: u64,
    }

    /// Asks to become a host, by an invitation's secret.
    #[derive(Eq)]
    pub struct AdmitHostRequest {
        /// BLAKE3 of the secret that was shown.
        pub secret_hash: Hash,
        /// The host that wants to be one.
        pub host: HostEntry,
    }

    /// Records the host that the cell was made on: nobody invites it.
    #[derive(Eq)]
    pub struct FirstHostRequest {
        /// It.
        pub host: HostEntry,
    }

    /// A host as Nucleus knows it.
    #[derive(Eq, Encode, Decode)]
    pub struct HostEntry {
        /// Its name: 1 to 64 letters, digits, '-', '_' or '.'.
        #[n(0)]
        pub name: String,
        /// Its key.
        #[n(1)]
        pub key: HostId,
        /// Where the bridge reaches it: multiaddresses.
        #[n(2)]
        pub addresses: Vec<String>,
        /// The services it is meant to run.
        #[n(3)]
        pub services: Vec<Service>,
        /// Whether it may come to lead the cell: it has the cell's key, and copies of all journals.
        #[n(4)]
        #[cbor(default)]
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pub may_lead: bool,
    }

    /// Asks for a host to be removed.
    #[derive(Eq)]
    #[serde(deny_unknown_fields)]
    pub struct RemoveHostRequest {
        /// The host's name.
        pub host: String,
        /// Whether it is lost: its services go on from the copies of their journals, without being asked to stop there.
        #[serde(default)]
        pub force: bool,
    }

    /// A host that was removed.
    #[derive(Eq)]
    pub struct RemovedHost {
        /// The host.
        pub host: HostEntry,
        /// The services that were taken over without it, and how many entries of each are known to be lost: a journal that was on that host
        /// alone ends where its copy did.
        #[serde(default)]
        pub lost: Vec<LostEntries>,
        /// The services whose journals the host could have signed, and that other keys sign from now on. Where one of them is missing, that is
        /// tried again until it is done: `nucleus.granted` tells.
        #[serde(default)]
        pub rekeyed: Vec<Service>,
    }

    /// Asks for a host to be emptied.
    #[derive(Eq)]
    #[serde(deny_unknown_fields)]
    pub struct DrainHostRequest {
        /// The host's name.
        pub host: String,
        /// The host that takes over what it runs; the one that leads unless told, and of that one another that votes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub to: Option<String>,
    }

    /// A host that runs nothing any more.
    #[derive(Eq)]
    pub struct DrainedHost {
        /// The host.
        pub host: String,
        /// Where its services are now.
        pub to: String,
        /// Those.
        pub moved: Vec<Service>,
        /// Whether it led, and hands that over as well, now that this was answered: `nucleus.hosts` tells when it has.
        pub hands_over: bool,
    }

    /// What was lost with a host.
    #[derive(Eq)]
    pub struct LostEntries {
        /// The service.
        pub service: Service,
        /// The entries that its journal has now.
        pub entries: u64,
        /// The entries that the lost host last said to have.
        pub said: u64,
    }

    /// Names a host.
    #[derive(Eq)]
    #[serde(deny_unknown_fields)]
    pub struct HostName {
        /// The host's name.
        pub host: String,
    }

    /// Who holds a journal.
    #[derive(Eq, Encode, Decode)]
    pub struct GrantView {
        /// The service that writes it.
        #[n(0)]
        pub service: Service,
        /// The host that does, by its name.
        #[n(1)]
        pub host: String,
        /// The fencing epoch, recorded in every entry written under it; it only rises.
        #[n(2)]
        pub epoch: u64,
        /// Whether nothing leaves the service before the replica of the host that leads has it too: then another host may take it over.
        #[n(3)]
        #[cbor(default)]
        #[serde(default)]
        pub replicated: bool,
        /// Whether it was taken over from a writer that was lost.
        #[n(4)]
        #[cbor(default)]
        #[serde(default)]
        pub takeover: bool,
        /// Which of the cell's keys for this journal signs it: 0 is the first. The next one does when a host is removed that was given this one.
        #[n(5)]
        #[cbor(default)]
        #[serde(default)]
        pub key_number: u32,
        /// The hosts that were given that key; whoever may lead has the cell's, and is not among them.
        #[n(6)]
        #[cbor(default)]
        #[serde(default)]
        pub known_to: Vec<HostId>,
    }

    /// The hosts, and what each may write.
    #[derive(Eq, Encode, Decode)]
    pub struct Roster {
        /// The hosts; a removed one is not among them.
        #[n(0)]
        pub hosts: Vec<HostEntry>,
        /// The journals.
        #[n(1)]
        pub grants: Vec<GrantView>,
        /// Rises with every change: an older roster says nothing against a newer one.
        #[n(2)]
        #[cbor(default)]
        #[serde(default)]
        pub number: u64,
    }

    /// Asks for a ticket by which another host becomes part of this cell.
    #[derive(Default, Eq)]
    #[serde(deny_unknown_fields)]
    pub struct InviteHostRequest {
        /// How long it may be used, in seconds: 900 unless told, a week at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub ttl_s: Option<u64>,
        /// Whether the host may come to lead the cell. It gets the cell's key.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pub may_lead: bool,
    }

    /// A ticket. It works once. Its secret is shown this once.
    #[derive(Eq)]
    pub struct HostTicket {
        /// For `cell host join`.
        pub ticket: String,
        /// When it ends, in milliseconds since 1970 (UTC).
        pub expires_ms: u64,
    }

    /// Asks for a service to be written on another host.
    #[derive(Eq)]
    #[serde(deny_unknown_fields)]
    pub struct MoveServiceRequest {
        /// Which.
        pub service: Service,
        /// Where to: a host's name.
        pub host: String,
    }

    /// One host of the cell, as the host that answers knows it.
    #[derive(Eq)]
    pub struct HostView {
        /// Its name.
        pub host: String,
        /// Its key, 64 hex digits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub key: Option<HostId>,
        /// The services it runs.
        pub services: Vec<Service>,
        /// Whether it is the one that answers.
        pub local: bool,
        /// Whether it leads: Nucleus runs there, and what faces other cells.
        #[serde(default)]
        pub leads: bool,
        /// Whether it may come to lead: it has the cell's key.
        #[serde(default)]
        pub may_lead: bool,
        /// Whether it counts when a host that leads is elected, and for what has to be on the disks of most.
        #[serde(default)]
        pub votes: bool,
        /// Whether it is connected with the one that answers, or is that.
        #[serde(default)]
        pub connected: bool,
        /// Which of its lives it is: rises with every start of its process.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub incarnation: Option<u64>,
        /// The software's version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub version: Option<String>,
        /// Calls under way there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub in_flight: Option<u64>,
        /// The last ping's round trip, in microseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub rtt_us: Option<u64>,
        /// Where its HTTP listens.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub http: Option<String>,
        /// Where the bridge reaches it.
        #[serde(default)]
        pub addresses: Vec<String>,
    }
}

impl Health {
    /// Out of its number; what a later version says is taken for a fault.
    pub const fn of(number: u8) -> Self {
        match number {
            0 => Self::Starting,
            1 => Self::Running,
            3 => Self::Stopped,
            _ => Self::Faulted,
        }
    }
}

words! {
    /// Which events to watch.
    #[derive(Eq, Default)]
    #[serde(deny_unknown_fields)]
    pub struct WatchRequest {
        /// Their names, joined by commas; `SERVICE.*` stands for all of a service. All events unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub names: Option<String>,
        /// Behind this cursor, and `0` for the beginning; from now on unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub since: Option<String>,
    }

    /// An event, and where whoever has it goes on.
    pub struct Watched {
        /// What to ask for `since`, to hear what follows.
        pub cursor: String,
        /// The event; none in a line that only says how far the stream is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub event: Option<Event>,
    }

    /// Which entries of which journal.
    #[derive(Copy, Eq)]
    #[serde(deny_unknown_fields)]
    pub struct ReadJournalRequest {
        /// Whose journal.
        pub journal: Service,
        /// From this entry on; from the first unless told.
        #[serde(default)]
        pub from: u64,
        /// At most so many; all unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub limit: Option<u64>,
    }

    /// An entry of a journal.
    pub struct JournalEntry {
        /// Its place.
        pub index: u64,
        /// When it was written, in milliseconds since 1970 (UTC).
        pub time_ms: u64,
        /// Under which grant.
        pub epoch: u64,
        /// Its bytes in the journal.
        pub bytes: u64,
        /// What it records.
        pub record: serde_json::Value,
    }
}

crate::actions! {
    service Nucleus;
    machine {
        /// Writes the manifest as entry 0; refused on a journal that has one.
        Initialise initialise(Manifest) -> Empty, Command, Internal;
        /// Records that the cell was restored from a backup, with new journals.
        Restored restored(RestoredRequest) -> Empty, Command, Internal;
        /// The cell's manifest.
        GetManifest manifest(Empty) -> Manifest, Query, Read;
        /// Grants a service's journal to a writer; without a grant an actor cannot append.
        Grant grant(GrantRequest) -> GrantView, Command, Internal;
        /// Records that whoever knows a secret may become a host, once.
        Invite invite(InvitationRequest) -> Invitation, Command, Internal;
        /// Admits a host by an invitation, which is used up by it. The same host may ask again.
        AdmitHost admit_host(AdmitHostRequest) -> HostEntry, Command, Internal;
        /// Records the host that the cell was made on, or that it is reached elsewhere.
        FirstHost first_host(FirstHostRequest) -> HostEntry, Command, Internal;
        /// Records that a host runs what it was invited for.
        SettleHost settle_host(HostName) -> HostEntry, Command, Internal;
        /// Takes a host's key from the cell: refused while it holds a journal.
        DropHost drop_host(HostName) -> HostEntry, Command, Internal;
        /// The hosts, and who holds which journal.
        GetRoster roster(Empty) -> Roster, Query, Read;
        /// Records the settings in force, if they differ from the last version.
        Configure configure(ConfigureRequest) -> Empty, Command, Internal;
        /// The configuration versions, newest first.
        Config config(ListRequest) -> Page<ConfigVersion>, Query, Read;
        /// Makes a bearer token; its secret is shown once and kept only as a hash.
        CreateToken create_token(CreateTokenRequest) -> CreatedToken, Command, Admin;
        /// Revokes a token at once.
        RevokeToken revoke_token(TokenName) -> TokenView, Command, Admin;
        /// The tokens, without their secrets.
        Tokens tokens(ListRequest) -> Page<TokenView>, Query, Admin;
        /// What a bearer may do.
        Authorise authorise(AuthoriseRequest) -> Authorised, Query, Internal;
        /// Records an admin action.
        Audit audit(AuditRequest) -> Empty, Command, Internal;
        /// The audit, newest first.
        AuditLog audit_log(ListRequest) -> Page<AuditEntry>, Query, Admin;
    }
    front {
        /// The cell as a whole: readiness, addresses, services.
        Status status(Empty) -> CellStatus, Query, Read;
        /// The six services as they are now.
        Services services(Empty) -> Page<ServiceStatus>, Query, Read;
        /// The hosts of this cell.
        Hosts hosts(Empty) -> Page<HostView>, Query, Read;
        /// Makes a ticket by which another host becomes part of this cell, once.
        InviteHost invite_host(InviteHostRequest) -> HostTicket, Command, Admin;
        /// Removes a host: what it runs is moved away first, and its key is refused from then on.
        RemoveHost remove_host(RemoveHostRequest) -> RemovedHost, Command, Admin;
        /// Moves what a host runs to another one while the cell runs, so that it can be stopped; if it leads and others may, so does that.
        DrainHost drain_host(DrainHostRequest) -> DrainedHost, Command, Admin;
        /// Moves a service to another host while the cell runs: the journal is copied there, checked, and written there from then on.
        MoveService move_service(MoveServiceRequest) -> ServiceStatus, Command, Admin;
        /// Follows a journal of another cell: keeps a verified copy of it, across restarts.
        Follow follow(FollowRequest) -> CopyView, Command, Admin;
        /// Follows a journal no longer.
        Unfollow unfollow(UnfollowRequest) -> CopyView, Command, Admin;
        /// The journals of other cells that are followed, and how far their copies are.
        Followed followed(Empty) -> Page<CopyView>, Query, Read;
        /// A trace: its spans on all hosts of the cell that answer in time.
        Trace trace(TraceRef) -> TraceView, Query, Read;
        /// The latest traces that were recorded, newest first.
        Traces traces(TracesRequest) -> Page<TraceSummary>, Query, Read;
        /// Tells something to one listener of each group. It is not journaled: who does not listen now never hears it.
        Emit emit(EmitRequest) -> Told, Command, Write;
        /// Tells something to every listener. It is not journaled: who does not listen now never hears it.
        Broadcast broadcast(BroadcastRequest) -> Told, Command, Write;
        /// Stops taking new work, finishes what was taken, keeps answering queries.
        Drain drain(Empty) -> Empty, Command, Admin;
        /// Drains, then stops the cell.
        Shutdown shutdown(Empty) -> Empty, Command, Admin;
    }
    stream {
        /// The events of all services, as they become durable. The first line has no event: it says where the stream begins.
        Watch watch(WatchRequest) -> Watched, Lines, Read;
        /// What is emitted and broadcast from now on. The first line has no signal: it says that it is listened.
        Listen listen(ListenRequest) -> Heard, Lines, Read;
        /// Entries of one journal of this cell, in their order, to the last one that is durable when it is asked.
        ReadJournal journal(ReadJournalRequest) -> JournalEntry, Lines, Admin;
    }
}

//! The module `members`: who takes part in the consensus from the next epoch on.
//!
//! Calls:
//!
//! - `join {weight, addresses}`: a cell that is no member asks to be one. It stands until it is accepted or asked for anew, or
//!   has waited for a week while others need its place.
//! - `accept {cell, weight}`: a member's vote for such a request, as it was read.
//! - `leave {}`: a member goes.
//! - `evict {cell}`: a member's vote to evict another one, as one that is away for good.
//! - `accuse {proof}`: the proof that a member has forked, by anybody. It is evicted at once.
//! - `rotate {key, proof}`: a member signs its events and words with another key than its cell's own, from the next epoch on
//!   (ADR 0021). `proof` is the new key's signature, [`prove_key`](protocol::members::prove_key).
//! - `activate {rules}`: a member's vote that the network executes under the next version of the rules (ADR 0022).
//!
//! Votes count once members of more than two thirds of the weight have given theirs, by the weights that hold then. The last member
//! stays. Where the genesis says so ([`JoinPolicy`]), one member's vote is enough for a request to join, or nobody joins.
//!
//! Keys: `set` holds the members as JSON, as the genesis names them; `joins` and `evictions` what is voted on, with the
//! voters; `address/DID` where a member listens, as far as it said; `keys/DID` the keys that a member had before;
//! `join` the policy, where it is not a vote; `rules` the version of the rules from the next epoch on, as [`Activated`](protocol::rules::Activated), and `activation` who votes for the
//! one after. A change is in `set` with its block, and takes effect with the next
//! epoch: [`asks_for_change`] says which transactions end one.

mod keys;
mod rules;

use std::collections::BTreeMap;

use keys::Rotate;
use machine::module::{Change, Module, ModuleState, Outcome, TxContext};
use machine::{Calls, Fault};
use protocol::genesis::{Genesis, JoinPolicy, MEMBERS_MAX, Member};
use protocol::gossip::ForkProof;
use protocol::members::MemberSet;
use protocol::transaction::Transaction;
use protocol::{CellId, Problem, ProblemKind};
use rules::Activate;
pub use rules::activates;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The module's name.
const NAME: &str = "members";
/// Requests to join that are open at once.
const JOINS_MAX: usize = 64;
/// How long a request keeps its place while others have none, in milliseconds: seven days.
const JOIN_WAITS_MS_MAX: u64 = 7 * 24 * 3600 * 1000;
/// The most weight of one member.
const WEIGHT_MAX: u64 = 1_000_000;
/// Addresses of one member, and bytes of each.
const ADDRESSES_MAX: usize = 8;
/// See [`ADDRESSES_MAX`].
const ADDRESS_BYTES_MAX: usize = 256;
/// What the module says where a call does not fit.
const CALLS: Calls = Calls {
    module: NAME,
    bad_args: "members.bad_args",
    unknown: "members.unknown_call",
    names: "join, accept, leave, evict, accuse, rotate, activate",
    shapes: r#"join takes {"weight":1,"addresses":[…]}, accept {"cell","weight"}, leave {}, evict {"cell"}, accuse {"proof"}, rotate {"key","proof"}, activate {"rules"}"#,
};

/// The module.
#[derive(Clone, Copy, Debug)]
pub struct Members;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Join {
    #[serde(default = "one")]
    weight: u64,
    #[serde(default)]
    addresses: Vec<String>,
}

const fn one() -> u64 {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Accept {
    cell: CellId,
    #[serde(default = "one")]
    weight: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Evict {
    cell: CellId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Accuse {
    proof: ForkProof,
}

enum Call {
    Join(Join),
    Accept(Accept),
    Leave,
    Evict(Evict),
    Accuse(Box<ForkProof>),
    Rotate(Rotate),
    Activate(u64),
}

/// A request to join, as the state holds it.
#[derive(Serialize, Deserialize)]
struct Request {
    weight: u64,
    asked_ms: u64,
    addresses: Vec<String>,
    votes: Vec<CellId>,
}

type Requests = BTreeMap<CellId, Request>;
type Evictions = BTreeMap<CellId, Vec<CellId>>;

/// Whether a transaction may change the members or the rules of the next epoch: one of a member's, as far as can be told without running it.
pub fn asks_for_change(transaction: &Transaction, is_member: bool) -> bool {
    is_member && transaction.module == NAME && transaction.call != "join"
}

/// The proof that a transaction accuses a member with.
pub(crate) fn accusation(transaction: &Transaction) -> Option<ForkProof> {
    if transaction.module != NAME || transaction.call != "accuse" {
        return None;
    }
    let args = serde_json::from_str(&transaction.args).ok()?;
    CALLS.arguments::<Accuse>(&args).ok().map(|accuse| accuse.proof)
}

impl Module for Members {
    fn name(&self) -> &'static str {
        NAME
    }

    fn genesis(&self, genesis: &Genesis, state: &mut dyn ModuleState) {
        state.put("set", genesis.member_set().to_state());
        if let Some(policy) = genesis.join.filter(|policy| *policy != JoinPolicy::default()) {
            write(state, "join", &policy);
        }
    }

    fn check(&self, call: &str, args: &Value) -> Outcome {
        parse(call, args).map(|_| ())
    }

    fn execute(
        &self,
        context: &TxContext,
        call: &str,
        args: &Value,
        state: &mut dyn ModuleState,
    ) -> Result<Outcome, Fault> {
        let call = match parse(call, args) {
            Ok(call) => call,
            Err(problem) => return Ok(Err(problem)),
        };
        let mut set: Vec<Member> = read(state, "set")?;
        let sender = context.sender;
        Ok(match call {
            Call::Join(join) => ask_to_join(context, state, &set, join)?,
            Call::Accept(accept) => vote_for(state, &mut set, sender, &accept)?,
            Call::Leave => remove(context, state, &mut set, &sender)?,
            Call::Evict(evict) => vote_against(context, state, &mut set, &evict.cell)?,
            Call::Accuse(proof) => accuse(context, state, &mut set, &proof)?,
            Call::Activate(asked) => rules::activate(context, state, &set, asked)?,
            Call::Rotate(asked) => keys::rotate(context, state, &mut set, &asked)?,
        })
    }

    fn check_invariants(&self, changes: &[Change]) -> Result<(), String> {
        if let Some(change) = changes.iter().find(|change| change.key == "rules") {
            rules::check(change.before.as_deref(), change.after.as_deref())?;
        }
        let Some(change) = changes.iter().find(|change| change.key == "set") else { return Ok(()) };
        let set = change.after.as_ref().ok_or("the members are gone")?;
        let set: Vec<Member> = serde_json::from_slice(set).map_err(|error| error.to_string())?;
        let mut cells: Vec<CellId> = set.iter().map(|member| member.cell).collect();
        cells.sort_unstable();
        cells.dedup();
        if cells.len() != set.len() {
            return Err("a member is named twice".to_owned());
        }
        if set.is_empty() || set.len() > MEMBERS_MAX {
            return Err(format!("{} members", set.len()));
        }
        if set.iter().any(|member| !(1..=WEIGHT_MAX).contains(&member.weight)) {
            return Err("a weight is out of bounds".to_owned());
        }
        MemberSet::new(set).bad_key().map_or(Ok(()), Err)
    }
}

fn ask_to_join(
    context: &TxContext,
    state: &mut dyn ModuleState,
    set: &[Member],
    join: Join,
) -> Result<Outcome, Fault> {
    if read::<JoinPolicy>(state, "join")? == JoinPolicy::Closed {
        return Ok(Err(Problem::new(ProblemKind::Denied, "members.closed", "nobody joins this network")
            .hint("its genesis says so; a cell can follow it without being a member")));
    }
    if set.iter().any(|member| member.cell == context.sender) {
        return Ok(Err(Problem::new(ProblemKind::Conflict, "members.is_member", "the sender is a member")
            .hint("it takes part from the next epoch on, if not yet: cell consensus members")));
    }
    if keys::stands_for_a_member(set, &context.sender) {
        return Ok(Err(keys::in_use(&context.sender)));
    }
    let mut joins: Requests = read(state, "joins")?;
    if joins.len() >= JOINS_MAX && !joins.contains_key(&context.sender) {
        joins.retain(|_, request| context.time_ms.saturating_sub(request.asked_ms) <= JOIN_WAITS_MS_MAX);
    }
    if joins.len() >= JOINS_MAX && !joins.contains_key(&context.sender) {
        let cause = format!("{JOINS_MAX} cells ask to join already");
        return Ok(Err(Problem::new(ProblemKind::Busy, "members.too_many_requests", cause)
            .hint("ask again when the members have decided: cell consensus requests")));
    }
    let Join { weight, addresses } = join;
    let request = Request { weight, asked_ms: context.time_ms, addresses, votes: Vec::new() };
    joins.insert(context.sender, request);
    write(state, "joins", &joins);
    Ok(Ok(()))
}

fn vote_for(
    state: &mut dyn ModuleState,
    set: &mut Vec<Member>,
    voter: CellId,
    accept: &Accept,
) -> Result<Outcome, Fault> {
    if let Err(problem) = may_vote(set, &voter) {
        return Ok(Err(problem));
    }
    let mut joins: Requests = read(state, "joins")?;
    let Some(request) = joins.get_mut(&accept.cell) else {
        let cause = format!("{} does not ask to join", accept.cell);
        return Ok(Err(Problem::new(ProblemKind::NotFound, "members.no_request", cause)
            .hint("cell consensus requests shows who does")));
    };
    if request.weight != accept.weight {
        let cause = format!("it asks for the weight {}", request.weight);
        return Ok(Err(Problem::new(ProblemKind::Conflict, "members.other_weight", cause)
            .hint("name the weight that it asks for, if that is your vote")));
    }
    if !request.votes.contains(&voter) {
        request.votes.push(voter);
    }
    // Whoever votes is a member.
    let is_enough = read::<JoinPolicy>(state, "join")? == JoinPolicy::Sponsor;
    if is_enough || is_carried(set, &request.votes) {
        if set.len() >= MEMBERS_MAX {
            let cause = format!("a network has {MEMBERS_MAX} members at most");
            return Ok(Err(Problem::new(ProblemKind::Conflict, "members.full", cause)
                .hint("somebody has to leave first")));
        }
        set.push(Member::new(accept.cell, request.weight));
        if !request.addresses.is_empty() {
            let addresses = std::mem::take(&mut request.addresses);
            write(state, &format!("address/{}", accept.cell), &addresses);
        }
        joins.remove(&accept.cell);
        write(state, "set", set);
    }
    write(state, "joins", &joins);
    Ok(Ok(()))
}

fn vote_against(
    context: &TxContext,
    state: &mut dyn ModuleState,
    set: &mut Vec<Member>,
    cell: &CellId,
) -> Result<Outcome, Fault> {
    let voter = context.sender;
    if let Err(problem) = may_vote(set, &voter) {
        return Ok(Err(problem));
    }
    if !set.iter().any(|member| member.cell == *cell) {
        return Ok(Err(no_member(cell)));
    }
    let mut evictions: Evictions = read(state, "evictions")?;
    let votes = evictions.entry(*cell).or_default();
    if !votes.contains(&voter) {
        votes.push(voter);
    }
    if is_carried(set, votes) {
        return remove(context, state, set, cell);
    }
    write(state, "evictions", &evictions);
    Ok(Ok(()))
}

/// A fork is proven by the key that the member had in its epoch.
fn accuse(
    context: &TxContext,
    state: &mut dyn ModuleState,
    set: &mut Vec<Member>,
    proof: &ForkProof,
) -> Result<Outcome, Fault> {
    let Some(member) = set.iter().find(|member| member.cell == proof.one.creator) else {
        return Ok(Err(no_member(&proof.one.creator)));
    };
    let Some(signer) = keys::signer_in(state, member, proof.one.epoch)? else {
        let cause = "the keys of that epoch are remembered no more";
        return Ok(Err(Problem::new(ProblemKind::Invalid, "fork.not_proven", cause)
            .hint("vote to evict the member: cell consensus evict")));
    };
    match proof.check(&context.genesis, &signer) {
        Ok(member) => remove(context, state, set, &member),
        Err(problem) => Ok(Err(problem)),
    }
}

fn remove(
    context: &TxContext,
    state: &mut dyn ModuleState,
    set: &mut Vec<Member>,
    cell: &CellId,
) -> Result<Outcome, Fault> {
    let Some(place) = set.iter().position(|member| member.cell == *cell) else {
        return Ok(Err(no_member(cell)));
    };
    if set.len() == 1 {
        return Ok(Err(Problem::new(ProblemKind::Conflict, "members.last", "it is the only member")
            .hint("a network needs one; let another cell join first")));
    }
    let member = set.remove(place);
    if member.key.is_some() {
        keys::retire(state, &member, context.epoch)?;
    }
    write(state, "set", set);
    let mut evictions: Evictions = read(state, "evictions")?;
    if evictions.remove(cell).is_some() {
        write(state, "evictions", &evictions);
    }
    state.delete(&format!("address/{cell}"));
    Ok(Ok(()))
}

fn may_vote(set: &[Member], voter: &CellId) -> Result<(), Problem> {
    if set.iter().any(|member| member.cell == *voter) { Ok(()) } else { Err(no_member(voter)) }
}

fn no_member(cell: &CellId) -> Problem {
    Problem::new(ProblemKind::Denied, "members.no_member", format!("{cell} is no member"))
        .hint("cell consensus members lists them")
}

/// Whether votes weigh more than two thirds, counted now: who is no member any more has none.
fn is_carried(set: &[Member], votes: &[CellId]) -> bool {
    let set = MemberSet::new(set.to_vec());
    set.is_supermajority(set.weight_of_all(votes.to_vec()))
}

fn parse(call: &str, args: &Value) -> Result<Call, Problem> {
    let call = match call {
        "join" => Call::Join(CALLS.arguments(args)?),
        "accept" => Call::Accept(CALLS.arguments(args)?),
        "leave" => CALLS.arguments(args).map(|Nothing {}| Call::Leave)?,
        "evict" => Call::Evict(CALLS.arguments(args)?),
        "accuse" => Call::Accuse(Box::new(CALLS.arguments::<Accuse>(args)?.proof)),
        "rotate" => Call::Rotate(CALLS.arguments(args)?),
        "activate" => Call::Activate(CALLS.arguments::<Activate>(args)?.rules),
        _ => return Err(CALLS.no_such(call)),
    };
    if let Call::Join(Join { weight, .. }) | Call::Accept(Accept { weight, .. }) = &call
        && !(1..=WEIGHT_MAX).contains(weight)
    {
        let cause = format!("{weight} is no weight");
        return Err(Problem::new(ProblemKind::Invalid, "members.bad_weight", cause)
            .hint(format!("a member has a weight of 1 to {WEIGHT_MAX}")));
    }
    if let Call::Join(Join { addresses, .. }) = &call
        && (addresses.len() > ADDRESSES_MAX
            || addresses.iter().any(|address| address.len() > ADDRESS_BYTES_MAX))
    {
        let cause = "too many addresses, or too long ones";
        return Err(Problem::new(ProblemKind::Invalid, "members.bad_addresses", cause)
            .hint(format!("at most {ADDRESSES_MAX} of {ADDRESS_BYTES_MAX} bytes each")));
    }
    Ok(call)
}

fn read<T: DeserializeOwned + Default>(state: &dyn ModuleState, key: &str) -> Result<T, Fault> {
    let Some(value) = state.get(key)? else { return Ok(T::default()) };
    serde_json::from_slice(&value).map_err(|error| Fault(format!("members/{key} cannot be read: {error}")))
}

fn write<T: Serialize + ?Sized>(state: &mut dyn ModuleState, key: &str, value: &T) {
    // Structs of strings and numbers: they can always be written.
    state.put(key, serde_json::to_vec(value).unwrap_or_default());
}

//! The hosts of the cell, and the right of each to write journals.
//!
//! The first host, on which the cell was made, needs no invitation. A grant names a host; its epoch rises when
//! it goes to another one, when it is given on other terms, when it is taken over from a host that is lost, and when
//! another key signs the journal. Which hosts were given the key that signs it now is remembered: one of them that is
//! removed could go on signing.

use machine::{Context, Fault, Read, Write, answer, commit, refuse};
use protocol::nucleus::{
    AdmitHostRequest, Answer, GrantRequest, GrantView, HostEntry, Invitation, InvitationRequest, Roster,
};
use protocol::{Hash, Service};

use crate::record::Record;
use crate::tables::{GRANTS, GrantRow, HOSTS, INVITATIONS, LEADERSHIPS, MANIFEST, REMOVED, ROSTER_NUMBER};
use crate::{Decided, NAME_BYTES_MAX, Refusal, is_name};

/// The name of the host that the cell was made on.
pub const FIRST_HOST: &str = "first";
/// The most hosts, and the most invitations that may be used.
pub const HOSTS_MAX: usize = 32;
/// What the first host was called before there were others.
const FIRST_HOST_BEFORE: &str = "local";
/// The longest life of an invitation, in seconds: a week.
const INVITATION_TTL_S_MAX: u64 = 7 * 24 * 3600;
/// The most addresses of one host.
const ADDRESSES_MAX: usize = 16;
/// The longest address, in bytes.
const ADDRESS_BYTES_MAX: usize = 256;

/// The name that a grant's host has now.
fn present_name(name: String) -> String {
    if name == FIRST_HOST_BEFORE { FIRST_HOST.to_owned() } else { name }
}

pub(crate) fn grant(view: &dyn Read, asked: GrantRequest) -> Decided {
    let GrantRequest { service, host, replicated, takeover, new_key } = asked;
    if host != FIRST_HOST && HOSTS.get(view, &host)?.is_none() {
        return refuse(Refusal::UnknownHost { name: shown(&host) });
    }
    // Its answer may have been lost: it is asked again then.
    let new_key = match new_key {
        Some(key) if signs(view, service, &key)? => None,
        new_key => new_key,
    };
    let epoch = match GRANTS.get(view, &(service as u8))? {
        Some(row)
            if !takeover
                && new_key.is_none()
                && row.replicated == replicated
                && present_name(row.host.clone()) == host =>
        {
            return answer(Answer::Grant(granted(service, row)));
        }
        Some(row) => row.epoch + 1,
        None => 1,
    };
    let row = next_row(view, (service, &host, epoch), (replicated, takeover), new_key.is_some())?;
    let record = Record::Granted { service, host, epoch, replicated, takeover, new_key };
    commit(vec![record], Answer::Grant(granted(service, row)))
}

/// Whether a key signs a journal.
fn signs(view: &dyn Read, service: Service, key: &Hash) -> Result<bool, Fault> {
    let journals = MANIFEST.get(view, &())?.map(|manifest| manifest.journals).unwrap_or_default();
    Ok(journals.iter().any(|journal| journal.service == service && journal.key == *key))
}

/// The row of a grant that follows the present one.
fn next_row(
    view: &dyn Read,
    (service, host, epoch): (Service, &String, u64),
    (replicated, takeover): (bool, bool),
    has_new_key: bool,
) -> Result<GrantRow, Fault> {
    let before = GRANTS.get(view, &(service as u8))?;
    let (mut key_number, mut known_to) =
        before.map_or((0, Vec::new()), |before| (before.key_number, before.known_to));
    if has_new_key {
        (key_number, known_to) = (key_number + 1, Vec::new());
    }
    let is_given = |entry: &HostEntry| entry.name != FIRST_HOST && !entry.may_lead;
    if let Some(entry) = HOSTS.get(view, host)?.filter(is_given)
        && !known_to.contains(&entry.key)
    {
        known_to.push(entry.key);
    }
    Ok(GrantRow { host: host.clone(), epoch, replicated, takeover, key_number, known_to })
}

/// Folds a grant, and the key that signs the journal from then on.
pub(crate) fn fold_grant(
    view: &mut dyn Write,
    grant: (Service, &String, u64),
    terms: (bool, bool),
    new_key: Option<Hash>,
) -> Result<(), Fault> {
    let row = next_row(view, grant, terms, new_key.is_some())?;
    GRANTS.put(view, &(grant.0 as u8), &row);
    if let Some(key) = new_key
        && let Some(mut manifest) = MANIFEST.get(view, &())?
    {
        let of_service = manifest.journals.iter_mut().filter(|journal| journal.service == grant.0);
        of_service.for_each(|journal| journal.key = key);
        MANIFEST.put(view, &(), &manifest);
    }
    Ok(())
}

fn granted(service: Service, row: GrantRow) -> GrantView {
    let GrantRow { host, epoch, replicated, takeover, key_number, known_to } = row;
    GrantView { service, host: present_name(host), epoch, replicated, takeover, key_number, known_to }
}

pub(crate) fn invite(view: &dyn Read, context: &Context, asked: &InvitationRequest) -> Decided {
    if !(1..=INVITATION_TTL_S_MAX).contains(&asked.ttl_s) {
        return refuse(Refusal::BadTtl { ttl_s: asked.ttl_s });
    }
    let mut usable = 0;
    for invitation in INVITATIONS.scan(view, &(), None, false) {
        let (_, (expires_ms, used)) = invitation?;
        usable += usize::from(used.is_none() && context.now_ms < expires_ms);
    }
    if usable >= HOSTS_MAX {
        return refuse(Refusal::TooManyHosts);
    }
    let expires_ms = context.now_ms + asked.ttl_s * 1000;
    let &InvitationRequest { secret_hash, may_lead, .. } = asked;
    let record = Record::HostInvited { secret_hash, expires_ms, may_lead };
    commit(vec![record], Answer::Invite(Invitation { expires_ms }))
}

pub(crate) fn admit(view: &dyn Read, context: &Context, asked: AdmitHostRequest) -> Decided {
    let AdmitHostRequest { secret_hash, host } = asked;
    if let Some(refusal) = not_a_host(view, &host)? {
        return refuse(refusal);
    }
    let Some((expires_ms, used)) = INVITATIONS.get(view, &secret_hash)? else {
        return refuse(Refusal::BadTicket);
    };
    // Whoever invites says so, not whoever comes.
    let host = HostEntry { may_lead: LEADERSHIPS.get(view, &secret_hash)?.is_some(), ..host };
    let before = HOSTS.get(view, &host.name)?;
    match used {
        // Its answer was lost: it asks again.
        Some(key) if key == host.key && before.as_ref().is_some_and(|before| before.key == key) => {
            return answer(Answer::AdmitHost(host));
        }
        Some(_) => return refuse(Refusal::TicketUsed),
        None if context.now_ms >= expires_ms => return refuse(Refusal::TicketExpired),
        None => {}
    }
    if before.is_some() || host.name == FIRST_HOST {
        return refuse(Refusal::HostExists { name: host.name });
    }
    if HOSTS.scan(view, &(), None, false).count() >= HOSTS_MAX {
        return refuse(Refusal::TooManyHosts);
    }
    let record = Record::HostJoined { host: host.clone(), secret_hash: Some(secret_hash) };
    commit(vec![record], Answer::AdmitHost(host))
}

/// The first host is known by its name; its addresses are those of its newest start.
pub(crate) fn first(view: &dyn Read, host: HostEntry) -> Decided {
    if let Some(refusal) = not_a_host(view, &host)? {
        return refuse(refusal);
    }
    if HOSTS.get(view, &host.name)?.is_some_and(|before| before == host) {
        return answer(Answer::FirstHost(host));
    }
    let record = Record::HostJoined { host: host.clone(), secret_hash: None };
    commit(vec![record], Answer::FirstHost(host))
}

/// What is wrong with a host, if something is.
fn not_a_host(view: &dyn Read, host: &HostEntry) -> Result<Option<Refusal>, Fault> {
    let fine = |address: &String| address.len() <= ADDRESS_BYTES_MAX;
    if !is_name(&host.name) || host.addresses.len() > ADDRESSES_MAX || !host.addresses.iter().all(fine) {
        return Ok(Some(Refusal::BadHostName { name: shown(&host.name) }));
    }
    let was_removed = REMOVED.get(view, &host.key)?.is_some();
    Ok(was_removed.then_some(Refusal::HostRevoked))
}

/// The other hosts go, and what they wrote is the first host's to write.
pub(crate) fn begin_alone(view: &mut dyn Write) -> Result<(), Fault> {
    let Roster { hosts, grants, .. } = roster(view)?;
    for host in hosts.into_iter().filter(|host| host.name != FIRST_HOST) {
        HOSTS.delete(view, &host.name);
        REMOVED.put(view, &host.key, &host.name);
    }
    for grant in grants {
        // The keys of a life are its own, and begin with the first.
        let (key_number, known_to) = (0, Vec::new());
        let row = match grant.host == FIRST_HOST {
            true => {
                let GrantView { host, epoch, replicated, takeover, .. } = grant;
                GrantRow { host, epoch, replicated, takeover, key_number, known_to }
            }
            false => {
                let (host, epoch) = (FIRST_HOST.to_owned(), grant.epoch + 1);
                GrantRow { host, epoch, replicated: false, takeover: false, key_number, known_to }
            }
        };
        GRANTS.put(view, &(grant.service as u8), &row);
    }
    Ok(())
}

/// What a host was invited for was done once: from then on services are moved by hand.
pub(crate) fn settle(view: &dyn Read, name: &str) -> Decided {
    let Some(host) = HOSTS.get(view, &name.to_owned())? else {
        return refuse(Refusal::UnknownHost { name: shown(name) });
    };
    if host.services.is_empty() {
        return answer(Answer::SettleHost(host));
    }
    let host = HostEntry { services: Vec::new(), ..host };
    commit(vec![Record::HostJoined { host: host.clone(), secret_hash: None }], Answer::SettleHost(host))
}

pub(crate) fn drop_host(view: &dyn Read, name: &str) -> Decided {
    // The first one stays, unless another one leads.
    let leads = grants(view)?.into_iter().find(|grant| grant.service == Service::Nucleus);
    let may_go = name != FIRST_HOST || leads.is_some_and(|grant| grant.host != name);
    let Some(host) = HOSTS.get(view, &name.to_owned())?.filter(|_| may_go) else {
        return refuse(Refusal::UnknownHost { name: shown(name) });
    };
    if let Some(held) = grants(view)?.into_iter().find(|grant| grant.host == name) {
        return refuse(Refusal::HostHoldsJournal { name: host.name, service: held.service });
    }
    commit(vec![Record::HostRemoved { host: host.clone() }], Answer::DropHost(host))
}

pub(crate) fn roster(view: &dyn Read) -> Result<Roster, Fault> {
    let hosts = HOSTS.scan(view, &(), None, false).map(|row| row.map(|(_, host)| host));
    let number = ROSTER_NUMBER.get(view, &())?.unwrap_or(0);
    Ok(Roster { hosts: hosts.collect::<Result<_, _>>()?, grants: grants(view)?, number })
}

fn grants(view: &dyn Read) -> Result<Vec<GrantView>, Fault> {
    let mut grants = Vec::new();
    for service in Service::ALL {
        if let Some(row) = GRANTS.get(view, &(service as u8))? {
            grants.push(granted(service, row));
        }
    }
    Ok(grants)
}

fn shown(name: &str) -> String {
    name.chars().take(NAME_BYTES_MAX).collect()
}

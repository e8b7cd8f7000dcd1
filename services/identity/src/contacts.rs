//! Contacts: whom the cell knows, where it is reached, what it may send and run here.

use machine::{Fault, Read, answer, commit, refuse};
use protocol::identity::{AddContactRequest, Admission, Answer, Contact, LearnRequest, SetAccessRequest};
use protocol::message::MessageType;
use protocol::shared::{Empty, ListRequest};
use protocol::{Access, CellId};

use crate::tables::{CONTACTS, NAMES};
use crate::{Decided, IdentityMachine, Record, Refusal, cell_cursor};

/// The most contacts.
const CONTACTS_MAX: usize = 10_000;
/// The most addresses of one contact; the newest are kept.
const ADDRESSES_MAX: usize = 16;
/// The longest address, in bytes.
const ADDRESS_BYTES_MAX: usize = 256;
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// What a new contact may send unless told.
const MAY_DEFAULT: [MessageType; 2] = [MessageType::Chat, MessageType::Auth];

pub(crate) fn add(machine: &IdentityMachine, view: &dyn Read, asked: AddContactRequest) -> Decided {
    if asked.cell == machine.cell {
        return refuse(Refusal::Oneself);
    }
    let old = CONTACTS.get(view, &asked.cell)?;
    if old.is_none() && CONTACTS.scan(view, &(), None, false).count() >= CONTACTS_MAX {
        return refuse(Refusal::TooManyContacts);
    }
    let mut contact = old.clone().unwrap_or_else(|| Contact {
        cell: asked.cell,
        name: None,
        addresses: Vec::new(),
        may: MAY_DEFAULT.to_vec(),
        exec: Vec::new(),
        genesis: None,
        journals: Vec::new(),
    });
    if let Some(name) = asked.name {
        if let Err(refusal) = check_name(view, &name, &asked.cell)? {
            return refuse(refusal);
        }
        contact.name = Some(name);
    }
    if let Err(refusal) = merge_addresses(&mut contact.addresses, asked.addresses) {
        return refuse(refusal);
    }
    if let Some(may) = asked.may {
        contact.may = tidy(may);
    }
    if let Some(exec) = asked.exec {
        match check_actions(exec) {
            Ok(exec) => contact.exec = exec,
            Err(refusal) => return refuse(refusal),
        }
    }
    if let Some(journals) = asked.journals {
        contact.journals = tidy(journals);
    }
    if old.as_ref() == Some(&contact) {
        return answer(Answer::AddContact(contact));
    }
    commit(vec![Record::ContactSet { contact: contact.clone() }], Answer::AddContact(contact))
}

pub(crate) fn remove(view: &dyn Read, who: &str) -> Decided {
    match find(view, who)? {
        Ok(contact) => {
            commit(vec![Record::ContactRemoved { cell: contact.cell }], Answer::RemoveContact(contact))
        }
        Err(refusal) => refuse(refusal),
    }
}

pub(crate) fn set_access(view: &dyn Read, asked: SetAccessRequest) -> Decided {
    let contact = match find(view, &asked.who)? {
        Ok(contact) => contact,
        Err(refusal) => return refuse(refusal),
    };
    match check_actions(asked.exec) {
        Ok(exec) => {
            let contact = Contact { may: tidy(asked.may), exec, journals: tidy(asked.journals), ..contact };
            commit(vec![Record::ContactSet { contact: contact.clone() }], Answer::SetAccess(contact))
        }
        Err(refusal) => refuse(refusal),
    }
}

pub(crate) fn list(view: &dyn Read, list: &ListRequest) -> Decided {
    let after = match cell_cursor(list) {
        Ok(after) => after,
        Err(problem) => return refuse(problem),
    };
    let rows = CONTACTS.scan(view, &(), after.as_ref(), false);
    let page = machine::page::collect(rows, list.limit(), |(cell, contact)| (contact, cell.to_string()))?;
    answer(Answer::Contacts(page))
}

pub(crate) fn learn(view: &dyn Read, asked: LearnRequest) -> Decided {
    let Some(old) = CONTACTS.get(view, &asked.cell)? else { return answer(Answer::Learn(Empty {})) };
    let mut contact = Contact { genesis: Some(asked.genesis), ..old.clone() };
    // What a handshake says is not a person's word: what does not fit is left out, not refused.
    let plausible = asked.addresses.into_iter().filter(|address| is_plausible(address));
    for address in plausible.take(ADDRESSES_MAX) {
        if !contact.addresses.contains(&address) {
            contact.addresses.push(address);
        }
    }
    let surplus = contact.addresses.len().saturating_sub(ADDRESSES_MAX);
    contact.addresses.drain(..surplus);
    if contact == old {
        return answer(Answer::Learn(Empty {}));
    }
    commit(vec![Record::ContactSet { contact }], Answer::Learn(Empty {}))
}

pub(crate) fn admit(view: &dyn Read, cell: &CellId) -> Decided {
    let admission = match CONTACTS.get(view, cell)? {
        Some(Contact { may, exec, journals, .. }) => Admission { contact: true, may, exec, journals },
        None => Admission { contact: false, may: Vec::new(), exec: Vec::new(), journals: Vec::new() },
    };
    answer(Answer::Admit(admission))
}

/// A contact by id or name.
pub(crate) fn find(view: &dyn Read, who: &str) -> Result<Result<Contact, Refusal>, Fault> {
    let cell = match who.parse::<CellId>() {
        Ok(cell) => Some(cell),
        Err(_) => NAMES.get(view, &who.to_owned())?,
    };
    let contact = cell.map(|cell| CONTACTS.get(view, &cell)).transpose()?.flatten();
    Ok(contact.ok_or_else(|| Refusal::UnknownContact { who: who.chars().take(80).collect() }))
}

/// A cell by id, known or not, or by a contact's name.
pub(crate) fn cell_of(view: &dyn Read, who: &str) -> Result<Result<CellId, Refusal>, Fault> {
    match who.parse::<CellId>() {
        Ok(cell) => Ok(Ok(cell)),
        Err(_) => Ok(find(view, who)?.map(|contact| contact.cell)),
    }
}

fn check_name(view: &dyn Read, name: &str, cell: &CellId) -> Result<Result<(), Refusal>, Fault> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(fine) {
        return Ok(Err(Refusal::BadName { name: name.chars().take(NAME_BYTES_MAX).collect() }));
    }
    let taken = NAMES.get(view, &name.to_owned())?.is_some_and(|owner| owner != *cell);
    Ok(if taken { Err(Refusal::NameTaken { name: name.to_owned() }) } else { Ok(()) })
}

fn is_plausible(address: &str) -> bool {
    address.starts_with('/')
        && address.len() <= ADDRESS_BYTES_MAX
        && address.chars().all(|c| c.is_ascii_graphic())
}

fn merge_addresses(known: &mut Vec<String>, more: Vec<String>) -> Result<(), Refusal> {
    for address in more {
        if !is_plausible(&address) {
            return Err(Refusal::BadAddress { address: address.chars().take(80).collect() });
        }
        if !known.contains(&address) {
            known.push(address);
        }
    }
    if known.len() > ADDRESSES_MAX { Err(Refusal::TooManyAddresses) } else { Ok(()) }
}

fn tidy<T: Ord>(mut named: Vec<T>) -> Vec<T> {
    named.sort_unstable();
    named.dedup();
    named
}

fn check_actions(mut exec: Vec<String>) -> Result<Vec<String>, Refusal> {
    exec.sort_unstable();
    exec.dedup();
    let open = |name: &str| {
        protocol::actions().iter().any(|info| info.name == name && info.access != Access::Internal)
    };
    match exec.iter().find(|name| !open(name)) {
        Some(action) => Err(Refusal::UnknownAction { action: action.chars().take(80).collect() }),
        None => Ok(exec),
    }
}

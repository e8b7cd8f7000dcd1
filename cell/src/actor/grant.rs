//! The right to write a journal. Without one no writer can be made.

use protocol::Service;
use protocol::nucleus::GrantAnswer;

/// A grant of one service's journal, under a fencing epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    service: Service,
    epoch: u64,
}

impl Grant {
    /// What Nucleus granted.
    pub fn by_nucleus(answer: &GrantAnswer) -> Self {
        Self { service: answer.service, epoch: answer.epoch }
    }

    /// What the host that leads says that Nucleus granted, to a host that runs a service for it.
    pub(crate) const fn by_lead(service: Service, epoch: u64) -> Self {
        Self { service, epoch }
    }

    /// Nucleus's own journal: nobody stands above it to grant it. With one host the folder's lock
    /// makes its writer single; among several hosts its log is the committed log of the consensus
    /// library (DESIGN §9, rule 8).
    pub const fn of_nucleus() -> Self {
        Self { service: Service::Nucleus, epoch: 1 }
    }

    /// Whose journal.
    pub const fn service(&self) -> Service {
        self.service
    }

    /// The epoch, recorded in every entry.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }
}

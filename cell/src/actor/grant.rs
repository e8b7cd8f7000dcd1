//! The right to write a journal. Without one no writer can be made.

use protocol::Service;
use protocol::nucleus::GrantView;

/// A grant of one service's journal, under a fencing epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    service: Service,
    epoch: u64,
    leased: bool,
    replicated: bool,
    takeover: bool,
}

impl Grant {
    /// What Nucleus granted to the host that leads.
    pub fn by_nucleus(grant: &GrantView) -> Self {
        let &GrantView { service, epoch, takeover, .. } = grant;
        Self { service, epoch, leased: false, replicated: false, takeover }
    }

    /// The same, where the hosts elect who leads: it holds as long as that host does.
    pub(crate) fn by_elected(grant: &GrantView) -> Self {
        let &GrantView { service, epoch, replicated, takeover, .. } = grant;
        Self { service, epoch, leased: true, replicated, takeover }
    }

    /// What the host that leads says that Nucleus granted, to a host that runs a service for it.
    pub(crate) const fn by_lead(service: Service, epoch: u64, replicated: bool, takeover: bool) -> Self {
        Self { service, epoch, leased: true, replicated, takeover }
    }

    /// Nucleus's own journal: nobody stands above it to grant it. With one host the folder's lock
    /// makes its writer single; where the hosts elect who leads it is a grant of the term.
    pub const fn of_nucleus() -> Self {
        Self { service: Service::Nucleus, epoch: 1, leased: false, replicated: false, takeover: false }
    }

    /// Nucleus's own journal, by election: each term is a takeover, since the writer of the one before may be alive.
    pub(crate) const fn of_term(term: u64, replicated: bool) -> Self {
        Self { service: Service::Nucleus, epoch: term, leased: true, replicated, takeover: true }
    }

    /// The same, under an epoch that is no lower than the journal's last.
    pub(crate) fn not_below(self, epoch: u64) -> Self {
        Self { epoch: self.epoch.max(epoch), ..self }
    }

    /// Whether it holds only as long as the host that leads says so.
    pub const fn is_leased(&self) -> bool {
        self.leased
    }

    /// Whether nothing is released before a replica has it too.
    pub const fn is_replicated(&self) -> bool {
        self.replicated
    }

    /// Whether the writer before is not known to have stopped.
    pub const fn is_takeover(&self) -> bool {
        self.takeover
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

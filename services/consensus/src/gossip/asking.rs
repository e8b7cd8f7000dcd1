//! Whom to ask for what is missing, and when.

use super::Settings;
use crate::hashgraph::MemberIndex;

/// What is known of a member's answers.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// When it was asked last, unless it answered with something new since.
    at_us: Option<u64>,
    /// When it was last asked before that was due, its link being a new one.
    anew_us: Option<u64>,
    /// Whether its answer is still to come.
    is_open: bool,
    /// Whether it has said, in this life, that it knows of nothing else.
    has_told_all: bool,
}

/// Whom to ask, and when.
#[derive(Debug)]
pub(super) struct Asking {
    me: MemberIndex,
    asked: Vec<Asked>,
    /// When something new came last, and when one was asked last because nothing did.
    last_new_us: u64,
    last_look_us: u64,
    next_asked: usize,
}

impl Asking {
    pub(super) fn new(me: MemberIndex, members: u16, now_us: u64) -> Self {
        let asked = vec![Asked::default(); usize::from(members)];
        Self { me, asked, last_new_us: now_us, last_look_us: now_us, next_asked: usize::from(me.0) }
    }

    pub(super) fn something_new(&mut self, now_us: u64) {
        self.last_new_us = self.last_new_us.max(now_us);
    }

    /// A question that was on its way to a member may be lost: another one is due now. But not again and again, so that nobody who
    /// comes and goes starts a storm.
    pub(super) fn is_lost(&mut self, member: MemberIndex, settings: &Settings, now_us: u64) {
        let asked = &mut self.asked[usize::from(member.0)];
        if asked.anew_us.is_none_or(|at| at.saturating_add(settings.answer_us_max) <= now_us) {
            asked.anew_us = Some(now_us);
            asked.at_us = None;
        }
    }

    /// Whether to ask a member now. If so, it counts as asked.
    pub(super) fn may_ask(&mut self, member: MemberIndex, settings: &Settings, now_us: u64) -> bool {
        let asked = &mut self.asked[usize::from(member.0)];
        let is_due = asked.at_us.is_none_or(|at| at.saturating_add(settings.answer_us_max) <= now_us);
        if is_due {
            asked.at_us = Some(now_us);
            asked.is_open = true;
        }
        is_due
    }

    /// An answer came; whether there was a question.
    pub(super) fn is_answer(&mut self, from: MemberIndex) -> bool {
        std::mem::take(&mut self.asked[usize::from(from.0)].is_open)
    }

    /// What an answer has brought. Who brings nothing new is not asked again at once, whatever else it says.
    pub(super) fn answered(&mut self, from: MemberIndex, is_new: bool, more: bool) {
        let asked = &mut self.asked[usize::from(from.0)];
        if is_new {
            asked.at_us = None;
        }
        asked.has_told_all |= !more;
    }

    /// Those of whom all is known that they knew, this member among them.
    pub(super) fn told_all(&self) -> impl Iterator<Item = MemberIndex> {
        self.members().filter(|member| *member == self.me || self.asked[usize::from(member.0)].has_told_all)
    }

    /// Those whom a member that starts still has to ask, and when.
    pub(super) fn to_start(&self, settings: &Settings) -> impl Iterator<Item = (MemberIndex, u64)> {
        let again_us = settings.answer_us_max;
        let others = self.members().filter(|member| *member != self.me);
        others
            .map(|member| (member, self.asked[usize::from(member.0)]))
            .filter(|(_, asked)| !asked.has_told_all)
            .map(move |(member, asked)| (member, asked.at_us.map_or(0, |at| at.saturating_add(again_us))))
    }

    /// When to look for what is missing though nothing comes.
    pub(super) fn next_look_us(&self, is_awake: bool, settings: &Settings) -> u64 {
        let silence = self.last_look_us.saturating_add(settings.silence_us_max);
        let quiet = self.last_new_us.max(self.last_look_us).saturating_add(settings.quiet_us_max);
        if self.asked.len() < 2 {
            u64::MAX
        } else if is_awake {
            silence.min(quiet)
        } else {
            silence
        }
    }

    /// Whom to ask now because nothing came: the others in turn.
    pub(super) fn look(&mut self, now_us: u64) -> MemberIndex {
        self.last_look_us = now_us;
        let members = self.asked.len();
        self.next_asked = (self.next_asked + 1) % members;
        if self.next_asked == usize::from(self.me.0) {
            self.next_asked = (self.next_asked + 1) % members;
        }
        MemberIndex(self.next_asked as u16)
    }

    fn members(&self) -> impl Iterator<Item = MemberIndex> + use<> {
        (0..self.asked.len() as u16).map(MemberIndex)
    }
}

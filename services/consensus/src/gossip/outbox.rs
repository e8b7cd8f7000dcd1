//! What is to be sent to each member, and no more of it than so much.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Said;
use crate::hashgraph::{EventId, MemberIndex};

/// What is to be sent to a member. Questions and answers are made when they go out, of what is known then.
#[derive(Debug)]
pub(super) enum Due {
    /// Events that this member has made.
    Push(Vec<Arc<Said>>),
    /// A question.
    Ask,
    /// The answer to a question with these tips.
    Answer(Vec<EventId>),
}

#[derive(Debug, Default)]
struct ToOne {
    events: VecDeque<Arc<Said>>,
    asks: bool,
    question: Option<Vec<EventId>>,
}

/// What is to be sent.
#[derive(Debug)]
pub(super) struct Outbox {
    me: MemberIndex,
    to: Vec<ToOne>,
    /// Members for whom there is something, each once.
    waiting: VecDeque<MemberIndex>,
    events_max: usize,
}

impl Outbox {
    pub(super) fn new(me: MemberIndex, members: u16, events_max: usize) -> Self {
        let to = (0..members).map(|_| ToOne::default()).collect();
        Self { me, to, waiting: VecDeque::new(), events_max }
    }

    /// An event for all others. Where too many wait it is left out: who misses it will ask.
    pub(super) fn push(&mut self, said: &Arc<Said>) {
        let (me, members) = (self.me, self.to.len() as u16);
        for to in (0..members).map(MemberIndex).filter(|to| *to != me) {
            if self.to[usize::from(to.0)].events.len() < self.events_max {
                self.with(to).events.push_back(Arc::clone(said));
            }
        }
    }

    /// A question to a member.
    pub(super) fn ask(&mut self, to: MemberIndex) {
        self.with(to).asks = true;
    }

    /// A member asks; an older question of it that is not answered yet is dropped.
    pub(super) fn answer(&mut self, to: MemberIndex, tips: Vec<EventId>) {
        self.with(to).question = Some(tips);
    }

    /// The next to be sent, the members in turn.
    pub(super) fn pop(&mut self) -> Option<(MemberIndex, Due)> {
        let to = self.waiting.pop_front()?;
        let out = &mut self.to[usize::from(to.0)];
        let due = if !out.events.is_empty() {
            Due::Push(out.events.drain(..).collect())
        } else if std::mem::take(&mut out.asks) {
            Due::Ask
        } else {
            Due::Answer(out.question.take()?)
        };
        if out.asks || out.question.is_some() {
            self.waiting.push_back(to);
        }
        Some((to, due))
    }

    fn with(&mut self, to: MemberIndex) -> &mut ToOne {
        let out = &mut self.to[usize::from(to.0)];
        if out.events.is_empty() && !out.asks && out.question.is_none() {
            self.waiting.push_back(to);
        }
        out
    }
}

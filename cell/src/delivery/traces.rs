//! Traces of messages: told beside a batch, and taken up where the batch is taken.
//!
//! A trace of another cell is taken up only with a message that its access list lets in, or a contact's reply, and only so often a second.

use protocol::identity::Admission;
use protocol::message::Message;
use protocol::trace::SpanKind;
use protocol::{MessageId, Problem, ProblemKind};

use super::wire::{BatchAnswer, TRACES_MAX, Traced};
use crate::telemetry::{Recording, TraceParent, Tracer};

type Span<'a> = Box<Recording<'a>>;

/// The traced messages of a batch that is under way.
pub(super) struct Deliveries<'a> {
    tracer: &'a Tracer,
    /// Each with its place in the batch.
    spans: Vec<(usize, MessageId, Span<'a>)>,
}

/// A batch leaves: the spans of those messages whose traces are recorded, and what is told of them.
pub(super) fn leave<'a>(
    tracer: &'a Tracer,
    messages: &[(MessageId, Message)],
) -> (Deliveries<'a>, Option<Vec<Traced>>) {
    let mut spans = Vec::new();
    if !tracer.sent.is_empty() {
        for (place, (id, message)) in messages.iter().enumerate() {
            let mut trace = tracer.sent.of(id).filter(|_| spans.len() < TRACES_MAX);
            if let Some(mut span) = tracer.follow(&mut trace, "deliver", || SpanKind::Producer) {
                span.rename(format!("deliver {}", message.kind));
                span.note("message", &id.to_string());
                span.note("to", &message.receiver.to_string());
                spans.push((place, *id, span));
            }
        }
    }
    let told = |(place, _, span): &(usize, MessageId, Span<'a>)| Traced {
        place: u32::try_from(*place).unwrap_or(u32::MAX),
        parent: span.context().to_string(),
    };
    let traces: Vec<Traced> = spans.iter().map(told).collect();
    (Deliveries { tracer, spans }, (!traces.is_empty()).then_some(traces))
}

impl Deliveries<'_> {
    /// The batch was answered. Who is to come again is remembered.
    pub(super) fn finish(self, answer: &Result<BatchAnswer, Problem>) {
        for (place, id, span) in self.spans {
            let refusal = match answer {
                Ok(BatchAnswer::Taken { outcomes, .. }) => outcomes.get(place).and_then(Option::as_ref),
                Ok(BatchAnswer::Refused { problem }) | Err(problem) => Some(problem),
            };
            span.finish(refusal.map(|problem| &*problem.code));
            let is_decided = matches!(answer, Ok(BatchAnswer::Taken { .. }))
                && refusal.is_none_or(|problem| problem.kind != ProblemKind::Busy);
            if is_decided {
                self.tracer.sent.forget(&id);
            }
        }
    }
}

/// The traced messages of a batch that has come.
pub(super) struct Arrivals<'a> {
    tracer: &'a Tracer,
    spans: Vec<(MessageId, Span<'a>)>,
}

/// A batch has come: the spans of those messages whose traces go on here, remembered for what the messages ask for.
pub(super) fn arrive<'a>(
    tracer: &'a Tracer,
    messages: &[(MessageId, Message)],
    traces: &[(MessageId, TraceParent)],
    admission: &Admission,
    is_own: bool,
) -> Arrivals<'a> {
    let mut spans = Vec::new();
    for (id, parent) in traces {
        let Some((_, message)) = messages.iter().find(|(genuine, _)| genuine == id) else { continue };
        let is_let_in = admission.may.contains(&message.kind) || message.in_reply_to.is_some();
        let is_a_friends = admission.contact && is_let_in;
        if !is_own && (!is_a_friends || !tracer.has_room_for_a_peers()) {
            continue;
        }
        let mut trace = Some(*parent);
        if let Some(mut span) = tracer.follow(&mut trace, "receive", || SpanKind::Consumer) {
            span.rename(format!("receive {}", message.kind));
            span.note("message", &id.to_string());
            span.note("from", &message.sender.to_string());
            if message::asks(message) {
                tracer.received.remember(*id, trace);
            }
            spans.push((*id, span));
        }
    }
    Arrivals { tracer, spans }
}

impl Arrivals<'_> {
    /// In which trace the batch is taken in: it is taken in as one.
    pub(super) fn context(&self) -> Option<TraceParent> {
        self.spans.first().map(|(_, span)| span.context())
    }

    /// What became of each message of the batch.
    pub(super) fn finish(self, ids: &[MessageId], outcomes: &[Option<Problem>]) {
        for (id, span) in self.spans {
            let outcome = ids.iter().position(|known| *known == id).and_then(|place| outcomes.get(place));
            let refusal = outcome.and_then(Option::as_ref);
            span.finish(refusal.map(|problem| &*problem.code));
            if refusal.is_some() {
                self.tracer.received.forget(&id);
            }
        }
    }
}

/// The messages whose traces are told to be recorded, a bounded number.
pub(super) fn told(traces: Option<Vec<Traced>>, ids: &[MessageId]) -> Vec<(MessageId, TraceParent)> {
    let one = |Traced { place, parent }: Traced| {
        let id = ids.get(usize::try_from(place).ok()?)?;
        Some((*id, TraceParent::parse(&parent).filter(|parent| parent.sampled)?))
    };
    traces.into_iter().flatten().take(TRACES_MAX).filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Trace;
    use crate::telemetry::Place;
    use protocol::CellId;
    use protocol::message::MessageType;
    use protocol::signing::Signature;

    fn tracer() -> Tracer {
        let place =
            Place { cell: CellId::from_bytes([1; 32]), name: "alice".to_owned(), host: "first".to_owned() };
        Tracer::new(place, &Trace { sample_per_1000: 0, spans_max: 100, otlp: String::new() })
    }

    fn message(number: u64) -> (MessageId, Message) {
        let cell = CellId::from_bytes([1; 32]);
        let message = Message {
            timestamp_ms: number,
            expires_ms: number + 1,
            sender: cell,
            receiver: cell,
            kind: MessageType::Exec,
            sealed: false,
            in_reply_to: None,
            body: Vec::new(),
            proof: Vec::new(),
            signature: Signature::from_bytes([0; 64]),
            nonce: number,
            together: None,
        };
        (message.id(), message)
    }

    fn admission(contact: bool, may: &[MessageType]) -> Admission {
        Admission { contact, may: may.to_vec(), exec: Vec::new(), journals: Vec::new() }
    }

    #[test]
    fn a_trace_goes_over_beside_its_message() {
        let (sender, receiver) = (tracer(), tracer());
        let messages: Vec<_> = (0..3).map(message).collect();
        let begun = TraceParent::begin();
        assert!(leave(&sender, &messages).1.is_none());
        sender.sent.remember(messages[1].0, Some(begun));
        let (deliveries, traces) = leave(&sender, &messages);
        let ids: Vec<MessageId> = messages.iter().map(|(id, _)| *id).collect();
        let told = told(traces, &ids);
        let arrivals = arrive(&receiver, &messages, &told, &admission(true, &[MessageType::Exec]), false);
        assert_eq!(receiver.received.of(&ids[1]), arrivals.context());
        arrivals.finish(&ids, &[None, None, None]);
        deliveries.finish(&Ok(BatchAnswer::Taken { receipt: None, outcomes: vec![None, None, None] }));
        assert!(sender.sent.is_empty(), "it has arrived");
        let (left, came) = (sender.spans(&begun.trace_id), receiver.spans(&begun.trace_id));
        assert_eq!((left.len(), came.len()), (1, 1));
        assert_eq!((&*left[0].name, &*came[0].name), ("deliver EXEC", "receive EXEC"));
        assert_eq!(left[0].parent, Some(hex::encode(begun.parent_id)));
        assert_eq!(came[0].parent.as_ref(), Some(&left[0].id));
    }

    #[test]
    fn a_delivery_that_failed_is_traced_again() {
        let sender = tracer();
        let messages = [message(0)];
        let begun = TraceParent::begin();
        sender.sent.remember(messages[0].0, Some(begun));
        let away = || Problem::new(ProblemKind::Unreachable, "network.unreachable", "it is away");
        leave(&sender, &messages).0.finish(&Err(away()));
        assert_eq!(sender.sent.of(&messages[0].0), Some(begun));
        let denied = Problem::new(ProblemKind::Denied, "message.not_allowed", "no");
        let refused = BatchAnswer::Taken { receipt: None, outcomes: vec![Some(denied)] };
        leave(&sender, &messages).0.finish(&Ok(refused));
        assert!(sender.sent.is_empty());
        let codes: Vec<_> = sender.spans(&begun.trace_id).into_iter().filter_map(|span| span.code).collect();
        assert_eq!(codes, ["message.not_allowed", "network.unreachable"]);
    }

    #[test]
    fn a_stranger_s_trace_ends_where_it_came_from() {
        let receiver = tracer();
        let messages = [message(0)];
        let told = [(messages[0].0, TraceParent::begin())];
        for nobody in [admission(false, &[MessageType::Exec]), admission(true, &[MessageType::Chat])] {
            assert!(arrive(&receiver, &messages, &told, &nobody, false).context().is_none());
        }
        assert!(receiver.received.is_empty());
        assert!(arrive(&receiver, &messages, &told, &admission(false, &[]), true).context().is_some());
    }

    #[test]
    fn what_is_told_is_bounded_and_malformed_ones_are_left_out() {
        let ids: Vec<MessageId> = (0..3).map(|number| message(number).0).collect();
        let fine = TraceParent::begin().to_string();
        let one = |place, parent: &str| Traced { place, parent: parent.to_owned() };
        let unsampled = TraceParent { sampled: false, ..TraceParent::begin() }.to_string();
        let traces = vec![one(9, &fine), one(0, "nonsense"), one(1, &unsampled), one(2, &fine)];
        assert_eq!(told(Some(traces), &ids).len(), 1);
        assert_eq!(told(Some(vec![one(0, &fine); 1_000]), &ids).len(), TRACES_MAX);
        assert!(told(None, &ids).is_empty());
    }
}

//! What Message refuses. Codes are stable: programs match on them.

use protocol::message::MessageType;

protocol::refusals! {
    /// What Message refuses.
    pub enum Refusal {
        BodyTooLarge { bytes: usize, bytes_max: usize } => TooLarge, "message.body_too_large",
            ("the body has {bytes} bytes, {bytes_max} are allowed"), "send less, or a POST with a link to the content";
        BadBody { kind: MessageType, why: String, example: &'static str } => Invalid, "message.bad_body",
            ("not a body of a {kind} message: {why}; one looks like {example}"), "GET /openapi.json has the schema of every body";
        NotMine => Invalid, "message.not_mine",
            ("the message was made by another cell"), "send it from its sender";
        NotForMe => Invalid, "message.not_for_me",
            ("the message is for another cell, or was brought by another than its sender"), "send it from its sender to its receiver";
        Expired => Invalid, "message.expired",
            ("the message has expired"), "send it again, with a later expiry";
        ClockSkew { off_ms: u64 } => Invalid, "message.clock_skew",
            ("the message is from {off_ms} ms in the future"), "set the sender's clock";
        BadLifetime => Invalid, "message.bad_lifetime",
            ("a message lives from 1 ms to 30 days"), "choose another ttl_ms";
        OutboxFull { waiting: u64 } => Busy, "message.outbox_full",
            ("{waiting} messages wait for delivery, more are not taken"), "wait until the receiver is back, or cancel some: cell message cancel ID";
        RequestIdReused => Conflict, "message.request_id_reused",
            ("the request id was used for another message"), "use a fresh request id for each message";
        BadRequestId => Invalid, "message.bad_request_id",
            ("a request id has 1 to 64 bytes"), "use a UUID";
        NotAllowed { kind: MessageType } => Denied, "message.not_allowed",
            ("the receiver does not take {kind} messages from this cell"),
            "the receiver's operator can allow them: `cell peers add MULTIADDR` for a stranger, identity.set_access for a contact";
        TooManyIntroductions => Denied, "message.introductions_used_up",
            ("a cell that is no contact may send 5 messages"), "the receiver's operator can add this cell: cell peers add MULTIADDR";
        TooManyStrangers => Busy, "message.too_many_strangers",
            ("the receiver has as many introductions as it can take"), "try again later, or have its operator add this cell: cell peers add MULTIADDR";
        TooManyReplies => Denied, "message.replies_used_up",
            ("the message that this one answers was answered often enough"), "the receiver's operator can allow more: identity.set_access";
        QuotaFull { bytes_max: u64 } => Busy, "message.quota_full",
            ("the receiver keeps {bytes_max} bytes of messages, and has them"), "the receiver's operator can raise its message quota";
        Overloaded { unsettled: u64 } => Busy, "message.overloaded",
            ("{unsettled} messages wait to be carried out at the receiver"), "try again later";
        BatchTooLarge { messages: usize, messages_max: usize } => TooLarge, "message.batch_too_large",
            ("a batch of {messages} messages, {messages_max} are allowed"), "send smaller batches";
        BadProof => Invalid, "message.bad_proof",
            ("a proof shows at most 5 messages"), "show the latest five";
        UnknownMessage => NotFound, "message.not_found",
            ("there is no such message here"), "cell message list shows them";
        NotCancellable => Conflict, "message.not_cancellable",
            ("only a queued outgoing message can be cancelled"), "cell message show ID tells its status";
        WrongReceipt => Invalid, "message.wrong_receipt",
            ("the receipt is not the receiver's for these messages"), "the receiver has to sign it anew";
        BadCursor => Invalid, "message.bad_cursor",
            ("the cursor was not made by this list"), "send back the \"next\" of the page before";
    }
}

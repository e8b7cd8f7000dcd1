//! Messages that are made at the same time share a signature.
//!
//! Signing and checking are the dearest steps of a message's way. Whoever comes first waits for one turn of
//! the scheduler; what has come by then for the same receiver is signed at once, over the Merkle root of
//! the ids, and each message gets its way up to that root ([`Together`]). A message that comes alone is
//! signed alone. Only messages to one receiver share: the hashes on the way tell nothing of what others get.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use protocol::message::{TOGETHER_MAX, Together};
use protocol::signing::Signature;
use protocol::{CellId, MessageId};
use tokio::sync::oneshot;

use super::Keyring;

struct Waiting {
    id: MessageId,
    /// Told the shared signature, or nothing if it stays alone.
    tell: oneshot::Sender<Option<(Signature, Together)>>,
}

/// Signs messages, several at once where it can.
#[derive(Default)]
pub struct Signer {
    waiting: Mutex<HashMap<CellId, Vec<Waiting>>>,
}

impl Signer {
    /// Signs a message with this id and signed text to a receiver.
    pub async fn sign(
        &self,
        keyring: &Keyring,
        receiver: CellId,
        id: MessageId,
        signed_text: &[u8],
    ) -> (Signature, Option<Together>) {
        let (tell, told) = oneshot::channel();
        if self.join(receiver, Waiting { id, tell }) {
            let lead = Lead { signer: self, keyring, receiver };
            tokio::task::yield_now().await;
            drop(lead);
        }
        match told.await {
            Ok(Some((signature, together))) => (signature, Some(together)),
            Ok(None) | Err(_) => (keyring.sign(signed_text), None),
        }
    }

    /// Whether it is the first, and leads.
    fn join(&self, receiver: CellId, waiting: Waiting) -> bool {
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let company = all.entry(receiver).or_default();
        company.push(waiting);
        company.len() == 1
    }
}

/// Signs for all when it is dropped: also when the first to come has gone away.
struct Lead<'a> {
    signer: &'a Signer,
    keyring: &'a Keyring,
    receiver: CellId,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut all = self.signer.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut company = all.remove(&self.receiver).unwrap_or_default();
        drop(all);
        company.retain(|waiting| !waiting.tell.is_closed());
        while !company.is_empty() {
            let rest = company.split_off(company.len().min(TOGETHER_MAX));
            let shared = std::mem::replace(&mut company, rest);
            if shared.len() == 1 {
                shared.into_iter().for_each(|waiting| drop(waiting.tell.send(None)));
                continue;
            }
            let ids: Vec<MessageId> = shared.iter().map(|waiting| waiting.id).collect();
            let (text, places) = Together::of(&self.keyring.cell(), &ids);
            let signature = self.keyring.sign(&text);
            for (waiting, together) in shared.into_iter().zip(places) {
                let _ = waiting.tell.send(Some((signature, together)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use protocol::message::{Message, MessageType};

    fn message(keyring: &Keyring, receiver: u8, nonce: u64) -> Message {
        Message {
            timestamp_ms: 1,
            expires_ms: 2,
            sender: keyring.cell(),
            receiver: CellId::from_bytes([receiver; 32]),
            kind: MessageType::Chat,
            sealed: false,
            in_reply_to: None,
            body: Vec::new(),
            proof: Vec::new(),
            signature: Signature::from_bytes([0; 64]),
            nonce,
            together: None,
        }
    }

    async fn signed(signer: &Signer, keyring: &Keyring, receiver: u8, nonce: u64) -> Message {
        let mut message = message(keyring, receiver, nonce);
        let text = message.signed_text();
        (message.signature, message.together) =
            signer.sign(keyring, message.receiver, Message::id_of(&text), &text).await;
        message
    }

    #[tokio::test]
    async fn who_comes_alone_is_signed_alone_and_who_comes_together_together_by_receiver() {
        let (signer, keyring) = (Signer::default(), Keyring::from_seed(&[1; 32]));
        let alone = signed(&signer, &keyring, 2, 0).await;
        assert!(alone.signature_holds() && alone.together.is_none());
        let many = TOGETHER_MAX as u64 + 2;
        let two = (0..many).map(|nonce| signed(&signer, &keyring, 2, nonce));
        let three = (0..3).map(|nonce| signed(&signer, &keyring, 3, nonce));
        let (two, three) = tokio::join!(join_all(two), join_all(three));
        assert!(two.iter().chain(&three).all(Message::signature_holds));
        let counts = |messages: &[Message]| {
            let count = |message: &Message| message.together.as_ref().map_or(1, |together| together.count);
            messages.iter().map(count).collect::<Vec<_>>()
        };
        assert_eq!(counts(&three), [3, 3, 3]);
        assert_eq!(counts(&two)[..TOGETHER_MAX], [TOGETHER_MAX as u64; TOGETHER_MAX]);
        assert_eq!(counts(&two)[TOGETHER_MAX..], [2, 2]);
    }

    #[tokio::test]
    async fn a_first_that_goes_away_leaves_nobody_waiting() {
        let (signer, keyring) = (Signer::default(), Keyring::from_seed(&[1; 32]));
        let mut first = Box::pin(signed(&signer, &keyring, 2, 0));
        assert!(futures_util::poll!(&mut first).is_pending());
        let mut others = Box::pin(join_all((1..3).map(|nonce| signed(&signer, &keyring, 2, nonce))));
        assert!(futures_util::poll!(&mut others).is_pending());
        drop(first);
        assert!(others.await.iter().all(Message::signature_holds));
    }
}

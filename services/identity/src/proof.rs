//! Checking interaction proofs.
//!
//! confidence = matching / shown; a proof passes at 0.8. A shown message matches when it carries a
//! counter-signed receipt that holds, between the two cells; two forged of five fail.

use protocol::identity::Verdict;
use protocol::message::PROOF_ITEMS_MAX;
use protocol::receipt::InteractionProof;

/// One, in parts per million.
pub const PPM: u32 = 1_000_000;
/// The confidence a proof passes at.
pub const PASS_PPM: u32 = 800_000;

/// matching / shown in parts per million; 0 when nothing is shown.
pub fn confidence_ppm(matching: u32, shown: u32) -> u32 {
    let ppm = u64::from(matching.min(shown)) * u64::from(PPM);
    ppm.checked_div(u64::from(shown)).map_or(0, |ppm| u32::try_from(ppm).unwrap_or(PPM))
}

/// What a proof is worth by its signatures alone. A proof that shows more than five messages shows
/// all of them as unmatched beyond the fifth.
pub fn check(proof: &InteractionProof) -> Verdict {
    verdict(proof.matching(), u32::try_from(proof.shown.len()).unwrap_or(u32::MAX))
}

/// The verdict for so many of so many.
pub fn verdict(matching: u32, shown: u32) -> Verdict {
    let confidence_ppm = confidence_ppm(matching, shown);
    Verdict { shown, matching, confidence_ppm, verified: confidence_ppm >= PASS_PPM }
}

/// The most messages a proof shows.
pub const SHOWN_MAX: usize = PROOF_ITEMS_MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use protocol::receipt::{Receipt, ReceiptHead, ShownMessage, batch_root};
    use protocol::{MessageId, signing};

    fn shown_message(sender: &SigningKey, receiver: &SigningKey, number: u8) -> ShownMessage {
        let ids = [MessageId::from_bytes([number; 32]), MessageId::from_bytes([number + 100; 32])];
        let mut head = ReceiptHead {
            receiver: signing::cell_id(receiver),
            sender: signing::cell_id(sender),
            time_ms: 5,
            count: 2,
            root: batch_root(&ids),
            signature: signing::Signature::from_bytes([0; 64]),
        };
        head.signature = signing::sign(receiver, &head.signed_text());
        ShownMessage { id: ids[0], receipt: Receipt::of(&head, &ids, 0).expect("in the batch") }
    }

    #[test]
    fn one_forged_of_five_passes_and_two_fail() {
        let (a, b, forger) = (
            SigningKey::from_bytes(&[1; 32]),
            SigningKey::from_bytes(&[2; 32]),
            SigningKey::from_bytes(&[3; 32]),
        );
        for (forged, verified) in [(0u8, true), (1, true), (2, false), (5, false)] {
            let shown = (0..5)
                .map(|number| {
                    let mut item = shown_message(&a, &b, number);
                    if number < forged {
                        item.receipt.head.signature =
                            signing::sign(&forger, &item.receipt.head.signed_text());
                    }
                    item
                })
                .collect();
            let proof = InteractionProof { prover: signing::cell_id(&a), with: signing::cell_id(&b), shown };
            let verdict = check(&proof);
            assert_eq!((verdict.matching, verdict.verified), (5 - u32::from(forged), verified));
        }
    }

    #[test]
    fn a_message_shown_twice_counts_once_and_strangers_do_not_count() {
        let (a, b, c) = (
            SigningKey::from_bytes(&[1; 32]),
            SigningKey::from_bytes(&[2; 32]),
            SigningKey::from_bytes(&[3; 32]),
        );
        let twice = vec![shown_message(&a, &b, 1), shown_message(&a, &b, 1), shown_message(&a, &c, 2)];
        let proof =
            InteractionProof { prover: signing::cell_id(&a), with: signing::cell_id(&b), shown: twice };
        assert_eq!(check(&proof).matching, 1);
    }
}

//! What the machine itself allows: signatures, syncs, and how loaded it is.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use ed25519_dalek::{SigningKey, VerifyingKey};
use protocol::message::{Message, MessageType};
use protocol::signing::{self, Signature, Signed};
use protocol::transaction::Transaction;

/// Signatures that are checked as one where a limit is measured.
const VERIFY_BATCH: usize = 256;

/// The load average and the cores.
pub(crate) fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    format!("{load} on {} cores", cores())
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How often a second all cores together can sign and verify a message with this body: one signature
/// at the sender and its check at the receiver are the work no cell can leave out.
pub(crate) fn sign_and_verify_rate(body: &[u8], span: Duration) -> f64 {
    let rates: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores()).map(|_| scope.spawn(|| sign_and_verify(body, span))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(0.0)).collect()
    });
    rates.iter().sum()
}

fn sign_and_verify(body: &[u8], span: Duration) -> f64 {
    let key = SigningKey::from_bytes(&[7; 32]);
    let cell = signing::cell_id(&key);
    let (start, mut count) = (Instant::now(), 0u64);
    while start.elapsed() < span {
        let mut message = Message {
            timestamp_ms: count,
            expires_ms: count + 1,
            sender: cell,
            receiver: cell,
            kind: MessageType::Chat,
            sealed: false,
            in_reply_to: None,
            body: body.to_vec(),
            proof: Vec::new(),
            signature: Signature::from_bytes([0; 64]),
            nonce: 0,
            together: None,
        };
        message.signature = signing::sign(&key, &message.signed_text());
        assert!(message.signature_holds());
        count += 1;
    }
    count as f64 / start.elapsed().as_secs_f64()
}

/// How many signatures of transactions all cores together can check in a second: one by one, and in batches, as ed25519-dalek does both.
pub(crate) fn verify_rates(sample: &[Transaction], span: Duration) -> (f64, f64) {
    let checks: Vec<Signed> = sample.iter().map(Transaction::to_check).collect();
    let rate = |batch: usize| -> f64 {
        let check = || {
            let (start, mut count) = (Instant::now(), 0);
            for some in checks.chunks(batch).cycle() {
                assert!(hold(some));
                count += some.len();
                if start.elapsed() >= span {
                    break;
                }
            }
            count as f64 / start.elapsed().as_secs_f64()
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..cores()).map(|_| scope.spawn(check)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(0.0)).sum()
        })
    };
    (rate(1), rate(VERIFY_BATCH))
}

fn hold(some: &[Signed]) -> bool {
    let key = |signed: &Signed| VerifyingKey::from_bytes(signed.signer.as_bytes()).expect("a key");
    let signature = |signed: &Signed| ed25519_dalek::Signature::from_bytes(signed.signature.as_bytes());
    if let [one] = some {
        return key(one).verify_strict(&one.bytes, &signature(one)).is_ok();
    }
    let texts: Vec<&[u8]> = some.iter().map(|signed| signed.bytes.as_slice()).collect();
    let signatures: Vec<_> = some.iter().map(signature).collect();
    let keys: Vec<_> = some.iter().map(key).collect();
    ed25519_dalek::verify_batch(&texts, &signatures, &keys).is_ok()
}

/// The median time of appending 300 bytes to a file and syncing it, twice.
pub(crate) fn two_syncs(dir: &Path) -> Duration {
    let mut file = std::fs::File::create(dir.join("sync-probe")).expect("a file");
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..2 {
                file.write_all(&[7; 300]).and_then(|()| file.sync_data()).expect("a sync");
            }
            start.elapsed()
        })
        .collect();
    median(&mut times)
}

pub(crate) fn median<T: Copy + PartialOrd>(values: &mut [T]) -> T {
    values.sort_unstable_by(|a, b| a.partial_cmp(b).expect("a number"));
    values[values.len() / 2]
}

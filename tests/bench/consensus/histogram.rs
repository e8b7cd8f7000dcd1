//! Latencies in buckets that are at most a sixty-fourth wide.

use serde_json::{Value, json};

const PER_OCTAVE: u32 = 64;
const BUCKETS: usize = 40 * PER_OCTAVE as usize;

/// Counts of microseconds.
pub(crate) struct Histogram(Vec<u64>);

impl Default for Histogram {
    fn default() -> Self {
        Self(vec![0; BUCKETS])
    }
}

impl Histogram {
    pub(crate) fn add(&mut self, us: u64) {
        self.0[bucket(us)] += 1;
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The value that such a share is not above; 0 of nothing.
    pub(crate) fn at(&self, share: f64) -> u64 {
        let wanted = (self.count() as f64 * share).ceil() as u64;
        let mut sum = 0;
        let place = self.0.iter().position(|count| {
            sum += count;
            sum >= wanted && sum > 0
        });
        place.map_or(0, upper)
    }

    pub(crate) fn to_json(&self) -> Value {
        let filled = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(place, count)| json!([place, count])).collect()
    }

    pub(crate) fn add_all(&mut self, other: &Value) {
        for pair in other.as_array().into_iter().flatten() {
            if let (Some(place), Some(count)) = (pair[0].as_u64(), pair[1].as_u64()) {
                self.0[(place as usize).min(BUCKETS - 1)] += count;
            }
        }
    }
}

/// Below [`PER_OCTAVE`] a bucket a microsecond, then so many buckets between a power of two and the next.
fn bucket(us: u64) -> usize {
    let small = u64::from(PER_OCTAVE);
    if us < small {
        return us as usize;
    }
    let octave = us.ilog2() - PER_OCTAVE.ilog2();
    let within = (us >> octave) - small;
    ((u64::from(octave + 1) * small + within) as usize).min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn upper(place: usize) -> u64 {
    let small = u64::from(PER_OCTAVE);
    let place = place as u64;
    if place < small {
        return place;
    }
    let (octave, within) = (place / small - 1, place % small);
    ((small + within + 1) << octave) - 1
}

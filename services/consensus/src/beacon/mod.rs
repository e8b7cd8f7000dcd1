//! The beacon: values that nobody chose and nobody knew before, the same at every member (ADR 0020).
//!
//! Source: the secret sharing of I. Cascudo and B. David, *ALBATROSS: publicly attestable batched randomness based on secret
//! sharing* (Asiacrypt 2020), with one secret a dealing; it stands on B. Schoenmakers' (Crypto 1999) and their own SCRAPE (ACNS
//! 2017). Dealings are added up before they are opened, as there.
//!
//! # Rules
//!
//! 1. A **draw** makes one value. Members **deal** for it: a polynomial *p* with random coefficients, one fewer of degree than the
//!    threshold, of which share *j* is *p(j)* times the key of who holds it. A proof goes with it that there is such a polynomial, and
//!    that the dealer knows it; the proof names network, epoch, draw, dealer and all keys.
//! 2. The order **fixes** a draw: the first dealings in it that hold, as many as it takes for their dealers to weigh more than a third. So
//!    one of them is honest. It is fixed at the end of a round, in the order of draws, one a round at most. What comes later is void.
//! 3. Once a draw is fixed, each member **opens** it: it adds its encrypted shares up and takes its key out of the sums, which gives
//!    the sum of the polynomials at *j* times the base. A proof goes with it that this was done with its own key. No honest member
//!    opens before.
//! 4. So many shares as the threshold give the sum of the secrets times the base, by interpolation; the **value** is its hash. Any others
//!    give the same.
//!
//! # Invariants
//!
//! - Members of less than a third of the weight hold fewer shares than the threshold ([`Holders`]): what they hold tells nothing of an
//!   honest secret before an honest member opens, which it does when nobody can change any more what goes into the sum. The
//!   secrets of others do not depend on it, since each dealer has proven that it knows its own. So the value is uniform.
//! - Members of two thirds hold as many as the threshold: who does not open changes nothing, and who does not deal neither.
//! - What a draw is, and when its value is known by the order, is a function of the order alone. Openings count before they are
//!   ordered as well ([`Beacon::hear`]), but that tells a member the value earlier and nobody another one.
//!
//! # The group
//!
//! The subgroup of prime order of edwards25519, so that members need no keys but those they have. A point is read by
//! multiplying it with the cofactor 8, which nothing outside of the subgroup survives, and written as an eighth of itself. The base is 8
//! times that of ed25519, so a member's key is 8 times its ed25519 key, with the same secret number. What using one key for both means is
//! argued in ADR 0020.
//!
//! Absent: entropy (a seed comes in), evidence kept (the caller journals what [`News::Bad`] names), coin rounds (ADR 0020).

mod deal;
mod draws;
mod group;
mod holders;
mod open;

pub use deal::{Dealt, Sealed, check_dealing, deal};
pub use draws::{AHEAD_MAX, Beacon, News, OPEN_MAX, Word};
pub use holders::{Holder, Holders};
pub use open::{Opened, check_opening, combine, open};

protocol::refusals! {
    /// What the beacon refuses.
    pub enum Refusal {
        NoMembers => Invalid, "beacon.no_members",
            ("the members are none, or one of them is named twice or weighs nothing"), "take them from the genesis";
        TooManyShares { shares: usize } => TooLarge, "beacon.too_many_shares",
            ("the members would hold {shares} shares, 256 are allowed"), "a network of that size elects a committee otherwise";
        UnknownMember => Denied, "beacon.unknown_member",
            ("who says so is no member, or holds no share"), "only members deal, and only holders of shares open";
        OtherEpoch { epoch: u64 } => Conflict, "beacon.other_epoch",
            ("it is of epoch {epoch}, which is not this one"), "deal again in the present epoch";
        NotSigned => Denied, "beacon.not_signed",
            ("the signature does not hold"), "nobody has said so: ask the member itself";
        BadDealing { why: &'static str } => Invalid, "beacon.bad_dealing",
            ("not a dealing: {why}"), "keep it: its signature proves who made it";
        BadOpening { why: &'static str } => Invalid, "beacon.bad_opening",
            ("not an opening: {why}"), "keep it: its signature proves who made it";
        OtherDealings => Conflict, "beacon.other_dealings",
            ("the opening is of other dealings than the order has fixed"), "keep it: a third of the members or more may be faulty";
        NotFixed { draw: u64 } => Conflict, "beacon.not_fixed",
            ("the order has not fixed draw {draw}"), "open it when it has";
        NotNextRound { round: u64, next: u64 } => Conflict, "beacon.not_next_round",
            ("round {round} is not the next one, {next} is"), "give all decided rounds, in order";
    }
}

impl Refusal {
    /// Whether what was refused was signed by a member, and shows by itself, with the members' keys and the fixed dealings, that
    /// this member is faulty.
    pub fn is_evidence(&self) -> bool {
        matches!(self, Self::BadDealing { .. } | Self::BadOpening { .. })
    }
}

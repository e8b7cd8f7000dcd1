//! Refusals in words: a stable code, a cause, and what to try next.
//!
//! One type carries every expected "no" to a caller, whichever way it came in: over HTTP it becomes
//! RFC 9457 `problem+json`, on the command line one JSON document or a sentence and an exit code.

use std::borrow::Cow;
use std::fmt;

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What sort of "no" it is; decides HTTP status and exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The request does not make sense: 400, exit 1.
    #[n(0)]
    Invalid,
    /// Nobody has shown who is asking: 401, exit 4.
    #[n(1)]
    Unauthenticated,
    /// Known, but not allowed: 403, exit 4.
    #[n(2)]
    Denied,
    /// No such thing: 404, exit 1.
    #[n(3)]
    NotFound,
    /// It clashes with what is already so: 409, exit 6.
    #[n(4)]
    Conflict,
    /// Over a size limit: 413, exit 1.
    #[n(5)]
    TooLarge,
    /// A bounded queue is full, or a rate limit was met; try again later: 429, exit 1.
    #[n(6)]
    Busy,
    /// The deadline passed and the outcome is not known: 504, exit 1.
    #[n(7)]
    UnknownOutcome,
    /// The service cannot serve now (starting, draining, suspended): 503, exit 5.
    #[n(8)]
    Unavailable,
    /// The service met a fault (a failed write, corrupt data) and stopped writing: 500, exit 5.
    #[n(9)]
    Fault,
    /// The cell or peer could not be reached: 502, exit 3.
    #[n(10)]
    Unreachable,
}

impl ProblemKind {
    /// The HTTP status it is shown as.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthenticated => 401,
            Self::Denied => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::Busy => 429,
            Self::UnknownOutcome => 504,
            Self::Unavailable => 503,
            Self::Fault => 500,
            Self::Unreachable => 502,
        }
    }

    /// The process exit code of the command line.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Invalid | Self::NotFound | Self::TooLarge | Self::Busy | Self::UnknownOutcome => 1,
            Self::Unreachable => 3,
            Self::Unauthenticated | Self::Denied => 4,
            Self::Unavailable | Self::Fault => 5,
            Self::Conflict => 6,
        }
    }
}

/// An expected "no", as a value.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Stable, `room.what`: programs match on this.
    #[n(0)]
    pub code: Cow<'static, str>,
    /// Why, in words, for this case.
    #[n(1)]
    pub cause: String,
    /// What to try next, where there is something.
    #[n(2)]
    #[serde(rename = "try", default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<Cow<'static, str>>,
    /// What sort of "no" it is.
    #[n(3)]
    pub kind: ProblemKind,
}

impl Problem {
    /// A problem without advice; see [`Problem::hint`].
    pub fn new(kind: ProblemKind, code: &'static str, cause: impl Into<String>) -> Self {
        Self { code: Cow::Borrowed(code), cause: cause.into(), hint: None, kind }
    }

    /// Adds what to try next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.cause, self.code)?;
        match &self.hint {
            Some(hint) => write!(f, "; try: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

/// Declares a service's refusals: one variant a refusal, each with kind, code, cause, and advice.
///
/// ```
/// protocol::refusals! {
///     /// What a post office refuses.
///     pub enum Refusal {
///         /// The box does not exist.
///         NoBox { number: u32 } => NotFound, "post.no_box",
///             ("there is no box {number}"), "post.list shows the boxes";
///     }
/// }
/// let problem = protocol::Problem::from(Refusal::NoBox { number: 7 });
/// assert_eq!(problem.code, "post.no_box");
/// ```
#[macro_export]
macro_rules! refusals {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $(
                $(#[$vmeta:meta])*
                $variant:ident $({ $($field:ident : $ty:ty),* $(,)? })? => $kind:ident, $code:literal,
                    ($($cause:tt)*), $hint:literal;
            )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $vis enum $name {
            $(
                $(#[$vmeta])*
                #[allow(missing_docs)]
                $variant $({ $($field: $ty),* })?,
            )*
        }

        impl $name {
            /// Every code of this enum, for the docs and for the test that codes are unique.
            pub const CODES: &'static [&'static str] = &[$($code),*];
        }

        impl From<$name> for $crate::Problem {
            fn from(refusal: $name) -> Self {
                match refusal {
                    $(
                        $name::$variant $({ $($field),* })? =>
                            $crate::Problem::new($crate::ProblemKind::$kind, $code, format!($($cause)*))
                                .hint($hint),
                    )*
                }
            }
        }
    };
}

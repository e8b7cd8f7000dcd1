//! Names of signals and of groups, and patterns of names.

use protocol::{Problem, ProblemKind};

/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Patterns of one listener.
const PATTERNS_MAX: usize = 16;

/// Which signals a listener wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Names {
    All,
    These(Vec<Pattern>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    Name(String),
    /// All that begin so; ends in a dot.
    Below(String),
}

impl Names {
    /// Reads a comma-separated list; `a.b.*` and `*` stand for many.
    pub(super) fn parse(text: Option<&str>) -> Result<Self, Problem> {
        let patterns: Vec<&str> = text
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|pattern| !pattern.is_empty())
            .collect();
        if patterns.is_empty() || patterns.contains(&"*") {
            return Ok(Self::All);
        }
        if patterns.len() > PATTERNS_MAX {
            let cause = format!("{} names", patterns.len());
            return Err(Problem::new(ProblemKind::Invalid, "signal.bad_name", cause)
                .hint(format!("name {PATTERNS_MAX} at most, or a pattern such as job.*")));
        }
        let pattern = |text: &str| match text.strip_suffix(".*") {
            Some(below) => name(below).map(|()| Pattern::Below(format!("{below}."))),
            None => name(text).map(|()| Pattern::Name(text.to_owned())),
        };
        patterns.into_iter().map(pattern).collect::<Result<_, _>>().map(Self::These)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(patterns) => patterns.iter().any(|pattern| match pattern {
                Pattern::Name(known) => known == name,
                Pattern::Below(prefix) => name.starts_with(prefix.as_str()),
            }),
        }
    }
}

/// Refuses what is no name of a signal.
pub(super) fn name(text: &str) -> Result<(), Problem> {
    is_name(text).then_some(()).ok_or_else(|| bad("signal.bad_name", "signal", text))
}

/// Refuses what is no name of a group.
pub(super) fn group(text: &str) -> Result<(), Problem> {
    is_name(text).then_some(()).ok_or_else(|| bad("signal.bad_group", "group", text))
}

fn is_name(text: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_fine)
}

fn bad(code: &'static str, what: &str, text: &str) -> Problem {
    let shown: String = text.chars().take(80).collect();
    Problem::new(ProblemKind::Invalid, code, format!("{shown:?} is no name of a {what}"))
        .hint(format!("1 to {NAME_BYTES_MAX} of a-z, 0-9, dot, hyphen, underscore"))
}

//! PRANA amounts: whole atoms, 18 decimals, in a `u128`. No floats anywhere.

use std::fmt;
use std::str::FromStr;

use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode, Encoder};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::problem::{Problem, ProblemKind};

/// Decimals of one PRANA.
pub const DECIMALS: u32 = 18;
/// Atoms in one PRANA.
pub const ATOMS_PER_PRANA: u128 = 10u128.pow(DECIMALS);

/// An amount of PRANA in atoms (10⁻¹⁸ PRANA). Shown as a decimal string such as `"1.5"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(pub u128);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Whole PRANA, as in a genesis.
    pub const fn from_prana(prana: u64) -> Self {
        Self(prana as u128 * ATOMS_PER_PRANA)
    }

    /// The sum, or `None` past 2¹²⁸ − 1 atoms.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(atoms) => Some(Self(atoms)),
            None => None,
        }
    }

    /// The difference, or `None` below zero.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(atoms) => Some(Self(atoms)),
            None => None,
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / ATOMS_PER_PRANA, self.0 % ATOMS_PER_PRANA);
        if part == 0 {
            return write!(f, "{whole}");
        }
        let decimals = format!("{part:018}");
        write!(f, "{whole}.{}", decimals.trim_end_matches('0'))
    }
}

impl FromStr for Amount {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let bad = |why: &str| {
            let shown: String = text.chars().take(80).collect();
            Problem::new(
                ProblemKind::Invalid,
                "amount.bad",
                format!("{shown:?} is not an amount of PRANA: {why}"),
            )
            .hint("a decimal number with up to 18 decimals, as in 12 or 0.5")
        };
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(part) || text.ends_with('.') {
            return Err(bad("only digits and one point"));
        }
        if part.len() > DECIMALS as usize {
            return Err(bad("more than 18 decimals"));
        }
        let whole: u128 = whole.parse().map_err(|_| bad("too large"))?;
        let part: u128 =
            if part.is_empty() { 0 } else { format!("{part:0<18}").parse().map_err(|_| bad("too large"))? };
        whole
            .checked_mul(ATOMS_PER_PRANA)
            .and_then(|atoms| atoms.checked_add(part))
            .map(Self)
            .ok_or_else(|| bad("too large"))
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|problem: Problem| serde::de::Error::custom(problem.cause))
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Amount".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]+(\\.[0-9]{1,18})?$",
            "description": "PRANA, decimal, up to 18 decimals"
        })
    }
}

impl<C> Encode<C> for Amount {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0.to_be_bytes())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Amount {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        if d.datatype()? != Type::Bytes {
            return Err(minicbor::decode::Error::message("an amount is 16 bytes"));
        }
        let bytes: [u8; 16] =
            d.bytes()?.try_into().map_err(|_| minicbor::decode::Error::message("an amount is 16 bytes"))?;
        Ok(Self(u128::from_be_bytes(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_shown_reads_back(atoms in any::<u128>()) {
            let amount = Amount(atoms);
            prop_assert_eq!(amount.to_string().parse::<Amount>(), Ok(amount));
        }
    }

    #[test]
    fn wrong_amounts_are_refused() {
        for text in
            ["", ".", "1.", ".5", "-1", "1e3", "1.0000000000000000001", "4e38", "999999999999999999999999"]
        {
            assert_eq!(text.parse::<Amount>().expect_err(text).code, "amount.bad");
        }
    }
}

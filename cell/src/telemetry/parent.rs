//! W3C Trace Context, level 1: what a `traceparent` header says.

use super::ids::Ids;

/// The characters of version 00: `00-TRACE-PARENT-FLAGS`.
const CHARS: usize = 55;

/// A W3C trace context (`traceparent`): which trace, and which span of it calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace's id; not all zero.
    pub trace_id: [u8; 16],
    /// The calling span's id; not all zero.
    pub parent_id: [u8; 8],
    /// Whether the caller records the trace.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads a `traceparent` header; `None` where it is malformed, as the recommendation asks. Of a later version is read what this one
    /// has.
    pub fn parse(header: &str) -> Option<Self> {
        let is_lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let bytes = header.as_bytes();
        let (known, later) = bytes.split_at_checked(CHARS)?;
        let well_formed = known.iter().enumerate().all(|(place, byte)| match place {
            2 | 35 | 52 => *byte == b'-',
            _ => is_lower_hex(*byte),
        });
        let fits = match &known[..2] {
            b"ff" => false,
            b"00" => later.is_empty(),
            _ => later.is_empty() || later[0] == b'-',
        };
        if !well_formed || !fits {
            return None;
        }
        let mut this = Self { trace_id: [0; 16], parent_id: [0; 8], sampled: false };
        let mut flags = [0u8; 1];
        hex::decode_to_slice(&known[3..35], &mut this.trace_id).ok()?;
        hex::decode_to_slice(&known[36..52], &mut this.parent_id).ok()?;
        hex::decode_to_slice(&known[53..55], &mut flags).ok()?;
        this.sampled = flags[0] & 1 == 1;
        (this.trace_id != [0; 16] && this.parent_id != [0; 8]).then_some(this)
    }

    /// A new trace that is to be recorded, begun outside of the cell.
    pub fn begin() -> Self {
        let ids = Ids::seeded();
        Self { trace_id: ids.trace_id(), parent_id: ids.span_id(), sampled: true }
    }
}

impl std::fmt::Display for TraceParent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{}-{}-{flags:02x}", hex::encode(self.trace_id), hex::encode(self.parent_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_trace_context_reads_back() {
        let parent = TraceParent::parse(TEXT).expect("valid");
        assert_eq!(parent.to_string(), TEXT);
        assert!(parent.sampled);
        assert!(!TraceParent::parse(&TEXT.replace("-01", "-00")).expect("valid").sampled);
        let begun = TraceParent::begin();
        assert_eq!(TraceParent::parse(&begun.to_string()), Some(begun));
    }

    #[test]
    fn malformed_ones_are_dropped() {
        let bad = [
            String::new(),
            "00".to_owned(),
            TEXT.replace('7', "g"),
            TEXT.to_uppercase(),
            TEXT.replacen("00-", "ff-", 1),
            TEXT.replace('-', "_"),
            format!("{TEXT}-extra"),
            format!("{TEXT} "),
            TEXT.replace("b7ad6b7169203331", "0000000000000000"),
            TEXT.replace("0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"),
            format!("01{}0", &TEXT[2..]),
            TEXT.replace("b7", "é"),
        ];
        for bad in bad {
            assert_eq!(TraceParent::parse(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn of_a_later_version_is_read_what_this_one_has() {
        let known = TraceParent::parse(TEXT);
        assert_eq!(TraceParent::parse(&format!("01{}", &TEXT[2..])), known);
        assert_eq!(TraceParent::parse(&format!("cc{}-what-comes", &TEXT[2..])), known);
    }
}

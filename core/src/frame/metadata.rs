//! One entry of metadata: the value of a TLV with the tag [`METADATA`](super::tag::METADATA).

/// The longest key.
pub const METADATA_KEY_MAX: usize = 255;

/// Reads an entry: its key, and its value, which may be any bytes. `None` if it is none.
#[must_use]
pub fn parse_metadata(entry: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = entry.split_first()?;
    let (key, value) = rest.split_at_checked(usize::from(*len))?;
    let key = core::str::from_utf8(key).ok()?;
    is_metadata_key(key).then_some((key, value))
}

/// Whether this may be a key: 1 to 255 lower-case letters and digits of ASCII, `-`, `_` and `.`.
#[must_use]
pub fn is_metadata_key(key: &str) -> bool {
    let is_one = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    (1..=METADATA_KEY_MAX).contains(&key.len()) && key.bytes().all(is_one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a07_an_entry_has_a_key_and_any_bytes() {
        assert_eq!(parse_metadata(b"\x03key\xff\x00"), Some(("key", &b"\xff\x00"[..])));
        assert_eq!(parse_metadata(b"\x01k"), Some(("k", &b""[..])));
        for bad in
            [&b""[..], b"\x00", b"\x00value", b"\x04key", b"\x03Key", b"\x02\xc3\xa4", b"\x02k "]
        {
            assert_eq!(parse_metadata(bad), None, "{bad:?}");
        }
    }
}

//! A mistake of the kind that fuzzing is for. Whoever does not find it would not find others.

use ringcall_core::frame::{Head, Kind};

/// Reads a REQUEST, and believes what its head says about the length of its header.
///
/// # Panics
/// As it should: with a header that is said to be longer than its frame.
pub fn canary(data: &[u8]) {
    let Some((bytes, rest)) = data.split_first_chunk() else { return };
    let head = Head::parse(bytes);
    let is_request =
        head.kind == Kind::Request as u8 && head.flags & !Kind::Request.known_flags() == 0;
    if !is_request || head.length as usize > rest.len() {
        return;
    }
    let frame = &rest[..head.length as usize];
    let _body = &frame[usize::from(head.header_len)..];
}

//! What a server says of its services, and what it answers, to a caller that has not its types.

use ringcall::reflection::{MethodDescription, ServiceDescription};
use ringcall_generic::{Catalog, Method};
use serde_json::Value;

/// Takes the bytes as two texts, each behind its length in two bytes, little endian, and a body: makes a method of them, and
/// all that is made of methods.
///
/// # Panics
/// When an example that was made for a method, or an argument that it has taken, is not of its type.
pub fn generic(data: &[u8]) {
    let Some((text_in, data)) = text(data) else { return };
    let Some((text_out, body)) = text(data) else { return };
    let method = MethodDescription {
        name: "method".to_owned(),
        docs: String::new(),
        text_in,
        text_out,
        is_one_way: false,
        is_idempotent: false,
        deadline: None,
    };
    let service =
        ServiceDescription { name: "a.B".to_owned(), docs: String::new(), methods: vec![method] };
    let catalog = Catalog::read([service]);
    let Some(method) = catalog.method("a.B/method") else {
        assert_eq!(catalog.not_understood(), ["a.B/method"]);
        return;
    };
    let _ = (method.signature(), method.argument_schema(), method.reply_schema());
    let _ = (method.error_schema(), method.decode_error(body));
    let example = method.example();
    let encoded = method.encode_argument(&example);
    // Of some types there is none.
    assert!(encoded.is_ok() || example.is_null(), "{encoded:?}: {example}");
    if let Some(value) = method.decode_reply(body) {
        take(method, &value);
    }
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        take(method, &value);
    }
}

/// What is taken as an argument is a body; what it is read as is taken again, and is the same then.
fn take(method: &Method, value: &Value) {
    let Ok(encoded) = method.encode_argument(value) else { return };
    let Some(read) = method.decode_argument(&encoded) else { panic!("{value}: {encoded:?}") };
    // What is no number is not taken back, and of long numbers the last digits may differ.
    if let Ok(again) = method.encode_argument(&read) {
        let read_again = method.decode_argument(&again);
        assert_eq!(read_again.as_ref(), Some(&read), "{value}");
    }
}

fn text(data: &[u8]) -> Option<(String, &[u8])> {
    let (length, data) = data.split_first_chunk()?;
    let (text, data) = data.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    Some((String::from_utf8_lossy(text).into_owned(), data))
}

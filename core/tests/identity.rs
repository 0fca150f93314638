//! Who the sides of a connection say they are, and who is expected.

mod harness;

use harness::Pair;
use harness::raw::*;
use ringcall_core::frame::{PREFACE, tag};
use ringcall_core::{
    Cause, CloseCode, CloseReason, Config, CredentialsTooLong, Expected, Failure, FailureClass,
    Identity, Side,
};

fn identity(text: &str) -> Identity {
    Identity::new(text).unwrap()
}

/// A client that expects `expected`, and a server that says that it is `said`; the handshake is done.
fn met(expected: Option<Expected>, said: Option<&str>) -> Pair {
    let mut pair = Pair::new(1);
    if let Some(expected) = expected {
        pair.client.connection.expect_peer(expected);
    }
    if let Some(said) = said {
        pair.server.connection.introduce(&identity(said)).unwrap();
    }
    pair.run();
    pair
}

#[test]
fn g07_who_is_as_expected_is_taken() {
    let expected = Expected::new(identity("a1"));
    for (expected, said) in [
        (None, None),
        (None, Some("b7")),
        (Some(expected.clone()), Some("a1")),
        (Some(expected.clone()), None),
        (Some(expected.required()), Some("a1")),
    ] {
        let mut pair = met(expected, said);
        assert!(pair.client.established && pair.server.established);
        assert_eq!(pair.client.connection.identity().map(Identity::as_str), said);
        assert_eq!(pair.client.connection.mismatch(), None);
        pair.call(7, b"hello").unwrap();
        pair.run();
        assert_eq!(pair.client.answer(7), b"hello");
    }
}

#[test]
fn g07_another_instance_is_left_in_the_handshake() {
    let expected = Expected::new(identity("a1"));
    for (expected, said) in [(expected.clone(), Some("b7")), (expected.required(), None)] {
        let mut pair = met(Some(expected), said);
        assert_eq!(
            (pair.client.established, pair.client.closed),
            (false, Some(CloseReason::WrongInstance))
        );
        assert_eq!(pair.server.closed, Some(CloseReason::GoAway(CloseCode::WRONG_INSTANCE)));
        let mismatch = pair.client.connection.mismatch().unwrap();
        assert_eq!(
            (mismatch.expected.as_str(), mismatch.met.as_ref().map(Identity::as_str)),
            ("a1", said)
        );
        let refused = pair.call(7, b"hello").unwrap_err();
        let cause = Cause::Closed(CloseReason::WrongInstance);
        assert_eq!(refused.failure, Failure::not_sent(cause));
        assert_eq!(refused.failure.class, FailureClass::NotSent);
        assert!(pair.server.requests.is_empty());
    }
}

#[test]
fn g07_what_is_no_identity_is_no_hello() {
    let says = |value: &[u8]| hello(|_| {}).tlv(tag::IDENTITY, value);
    let bad = Some(CloseReason::BadHello);
    let cases = [
        (says(b"a1"), None),
        (
            hello(|_| {}).tlv(tag::CRITICAL | tag::IDENTITY, b"a1"),
            Some(CloseReason::UnknownExtension(16)),
        ),
        (says(&[b'x'; 256]), None),
        (says(b""), bad),
        (says(&[b'x'; 257]), bad),
        (says(&[b'x'; 3900]), bad),
        (says(b"a\xff"), bad),
        (says(b"a\n"), bad),
        (says(b"a1").tlv(tag::IDENTITY, b"a1"), bad),
    ];
    for (frame, end) in cases {
        for (side, split) in [(Side::Server, usize::MAX), (Side::Server, 1), (Side::Client, 7)] {
            let mut raw = Raw::new(side, Config::new());
            raw.split = split;
            raw.send_bytes(&PREFACE);
            raw.send(std::slice::from_ref(&frame));
            assert_eq!((raw.closed, raw.established), (end, end.is_none()), "{frame:?}");
            assert_eq!(raw.connection.identity().is_some(), end.is_none());
        }
    }
}

#[test]
fn g07_credentials_and_an_identity_share_a_hello() {
    let long = identity(&"x".repeat(256));
    let mut pair = Pair::new(1);
    let client = &mut pair.client.connection;
    client.introduce(&long).unwrap();
    assert_eq!(client.present(&[7; 3737]), Err(CredentialsTooLong));
    client.present(&[7; 3736]).unwrap();
    pair.run();
    assert!(pair.server.established);
    assert_eq!(pair.server.connection.credentials(), Some(&[7; 3736][..]));
    assert_eq!(pair.server.connection.identity(), Some(&long));
    let mut pair = Pair::new(1);
    pair.client.connection.present(&[7; 3996]).unwrap();
    assert_eq!(pair.client.connection.introduce(&identity("x")), Err(CredentialsTooLong));
    pair.run();
    assert!(pair.server.established);
}

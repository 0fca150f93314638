//! What files of shapes say about a change of one type.

use std::convert::Infallible;
use std::num::NonZeroU8;

use ringcall_codec_rkyv::compare::{Verdict, compare, render};
use ringcall_codec_rkyv::{Message, Signatures, WireType};
use ringcall_macros::message;

/// Where the macro looks.
mod ringcall {
    pub(crate) mod __private {
        pub(crate) use ringcall_codec_rkyv as codec;
    }
}

// The same types in different builds.

#[allow(dead_code, reason = "only its shapes are looked at")]
mod place {
    #[super::message(crate = super::ringcall)]
    pub(super) struct Size(u8);
    #[super::message(crate = super::ringcall)]
    pub(super) enum Order {
        At(u8),
        Cancel,
    }
}

#[allow(dead_code, reason = "only its shapes are looked at")]
mod two_places {
    #[super::message(crate = super::ringcall)]
    pub(super) struct Size(u8, u8);
    #[super::message(crate = super::ringcall)]
    pub(super) enum Order {
        At(u8, u8),
        Cancel,
    }
}

#[allow(dead_code, reason = "only its shapes are looked at")]
mod named {
    #[super::message(crate = super::ringcall)]
    pub(super) struct Size {
        lots: u8,
    }
    #[super::message(crate = super::ringcall)]
    pub(super) enum Order {
        At { price: u8 },
        Cancel,
    }
}

#[allow(dead_code, reason = "only its shapes are looked at")]
mod two_names {
    #[super::message(crate = super::ringcall)]
    pub(super) struct Size {
        lots: u8,
        of: Option<u8>,
    }
    #[super::message(crate = super::ringcall)]
    pub(super) enum Order {
        At { price: u8, of: Option<u8> },
        Cancel,
    }
}

#[allow(dead_code, reason = "only its shapes are looked at")]
mod nothing {
    #[super::message(crate = super::ringcall)]
    pub(super) struct Size {}
    #[super::message(crate = super::ringcall)]
    pub(super) enum Order {
        At,
        Cancel,
    }
}

#[allow(dead_code, reason = "only its shapes are looked at")]
mod wide {
    #[super::message(crate = super::ringcall)]
    pub(super) struct Size(u16);
    #[super::message(crate = super::ringcall)]
    pub(super) enum Order {
        At(u16),
        Cancel,
        Halt,
    }
}

const METHOD: &str = "test.Desk/put";

fn file<M: Message>() -> String {
    let Signatures { in_text, out_text, .. } = Signatures::of::<M, (), Infallible>();
    render([(METHOD, &*in_text, &*out_text)])
}

fn verdict<Old: Message, New: Message>() -> Verdict {
    let compared = compare(&file::<Old>(), &file::<New>()).unwrap();
    assert_eq!(compared.len(), 1);
    compared[0].verdict
}

/// In either order, also when something is around it.
fn verdicts<A: WireType, B: WireType>() -> Verdict
where
    (A,): Message,
    (B,): Message,
{
    let verdict_of = verdict::<(A,), (B,)>();
    assert_eq!(verdict::<(B,), (A,)>(), verdict_of);
    verdict_of
}

/// Those that are numbers of one kind are read as far as they fit. A floating-point number is never read
/// as an integer.
#[test]
fn numbers_become_others_of_their_kind() {
    assert_eq!(verdicts::<u32, u32>(), Verdict::FastPath);
    assert_eq!(verdicts::<u32, i8>(), Verdict::Fallback);
    assert_eq!(verdicts::<u128, u64>(), Verdict::Fallback);
    assert_eq!(verdicts::<u128, i128>(), Verdict::Fallback);
    assert_eq!(verdicts::<NonZeroU8, u128>(), Verdict::Fallback);
    assert_eq!(verdicts::<f32, f64>(), Verdict::Fallback);
    assert_eq!(verdicts::<f64, u64>(), Verdict::Incompatible);
    assert_eq!(verdicts::<bool, u8>(), Verdict::Incompatible);
}

#[test]
fn boxes_are_seen_through_and_options_are_told() {
    assert_eq!(verdicts::<Box<u32>, u64>(), Verdict::Fallback);
    assert_eq!(verdicts::<Option<Box<u32>>, u32>(), Verdict::Fallback);
    assert_eq!(verdicts::<Option<u32>, String>(), Verdict::Incompatible);
    assert_eq!(verdicts::<Vec<u32>, u32>(), Verdict::Incompatible);
}

/// Fields without names are an array, or what is in it; those with names are a map. What a variant without
/// fields is has no place for any.
#[test]
fn fields_with_names_and_without_are_not_each_other() {
    assert_eq!(verdicts::<place::Size, wide::Size>(), Verdict::Fallback);
    assert_eq!(verdicts::<named::Size, two_names::Size>(), Verdict::Fallback);
    assert_eq!(verdicts::<named::Size, nothing::Size>(), Verdict::Fallback);
    assert_eq!(verdicts::<place::Size, named::Size>(), Verdict::Incompatible);
    assert_eq!(verdicts::<place::Size, two_places::Size>(), Verdict::Incompatible);
    assert_eq!(verdicts::<two_places::Size, two_names::Size>(), Verdict::Incompatible);
    assert_eq!(verdicts::<place::Order, wide::Order>(), Verdict::Fallback);
    assert_eq!(verdicts::<named::Order, two_names::Order>(), Verdict::Fallback);
    assert_eq!(verdicts::<place::Order, named::Order>(), Verdict::Incompatible);
    assert_eq!(verdicts::<place::Order, two_places::Order>(), Verdict::Incompatible);
    assert_eq!(verdicts::<named::Order, nothing::Order>(), Verdict::Incompatible);
    assert_eq!(verdicts::<place::Order, nothing::Order>(), Verdict::Incompatible);
}

/// A file that somebody edited is an error or something else, but nobody's panic.
#[test]
fn containers_of_nothing_are_no_panic() {
    let good = file::<(Option<Box<u32>>,)>();
    for wrong in ["box:4:4()", "option:8:4()", "vec:8:4()", ""] {
        let wrong = good.replace("option:8:4(box:4:4(u32:4:4 ) )", wrong);
        assert_ne!(wrong, good);
        for (old, new) in [(&good, &wrong), (&wrong, &good), (&wrong, &file::<(u8,)>())] {
            let _ = compare(old, new);
        }
    }
}

//! Borrowed forms of whatever a struct may look like.
#![allow(non_snake_case, reason = "names of fields may be anything")]
#![forbid(private_bounds)]

use std::time::SystemTime;

use ringcall::{Encoded, UnixTime, View};

mod inner {
    #[ringcall::message(borrowed = Lent)]
    #[rkyv(archived = Stored)]
    pub struct Owned {
        pub(super) name: String,
        pub(in crate::borrowed) list: Vec<super::Kind>,
        private: Option<Box<Owned>>,
    }

    impl Owned {
        pub(super) fn lent(&self) -> ringcall::Encoded<Owned> {
            let Owned { name, list, private } = self;
            ringcall::Encoded::of(&Lent { name, list, private })
        }
    }
}

#[ringcall::message]
enum Kind {
    One,
    Two(String),
}

/// Of which the parameters would be called the same.
#[ringcall::message(borrowed)]
struct Names {
    a_b: String,
    a__b: Vec<u8>,
    _a_b: (String,),
    r#type: Kind,
    äöü: String,
    _2fa: Vec<u16>,
    post: LikePost,
}

#[ringcall::message]
struct LikePost(u8);

#[ringcall::message(borrowed)]
struct r#Match(String, #[rkyv(with = UnixTime)] SystemTime, u8, [Kind; 2]);

/// Numbers only.
#[ringcall::message(borrowed)]
#[derive(Clone, Copy, PartialEq)]
struct Point {
    x: f64,
    y: f64,
}

#[ringcall::service]
trait Lenders {
    #[method(encoded)]
    async fn owned(&self, owned: View<inner::Owned>) -> Encoded<inner::Owned>;
    #[method(encoded)]
    async fn r#match(&self, it: View<r#Match>) -> Result<Encoded<r#Match>, Kind>;
    #[method(encoded)]
    async fn names(&self, names: Names) -> Encoded<Names>;
}

struct Library;

impl Lenders for Library {
    async fn owned(&self, owned: View<inner::Owned>) -> Encoded<inner::Owned> {
        owned.to_owned().lent()
    }

    async fn r#match(&self, it: View<r#Match>) -> Result<Encoded<r#Match>, Kind> {
        let at = it.1.to_system_time();
        Ok(Encoded::of(&MatchRef(&it.0, at, it.2, &it.3)))
    }

    async fn names(&self, names: Names) -> Encoded<Names> {
        Encoded::of(&NamesRef {
            a_b: "a",
            a__b: b"bytes".as_slice(),
            _a_b: ("b",),
            r#type: Kind::One,
            äöü: names.äöü,
            _2fa: [1u16, 2],
            post: LikePost(1),
        })
    }
}

fn point() -> Encoded<Point> {
    let point = PointRef { x: 1.0, y: 2.0 };
    let again = point;
    let _ = format!("{again:?}");
    Encoded::of(&point)
}

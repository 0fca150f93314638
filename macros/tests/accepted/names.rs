//! No name of a user meets one of the macros'.

#![deny(warnings)]
#![allow(non_camel_case_types)]

use ringcall::{Context, Responder, View};

#[ringcall::message]
struct A {
    r#type: u8,
}

#[ringcall::message]
struct B {
    shape: A,
    value: u8,
    tag: u8,
}

#[ringcall::message]
enum C {
    r#Self_,
    Shape(B),
}

#[ringcall::message]
struct r#struct {
    r#fn: u8,
}

/// Called like types of other crates that cannot be part of a message.
#[ringcall::message]
#[derive(PartialEq)]
struct Decimal(i64);

#[ringcall::message]
#[derive(PartialEq)]
struct DateTime {
    secs: u64,
}

#[ringcall::message]
#[derive(PartialEq)]
struct Instant<Arc> {
    price: Arc,
    since: Vec<DateTime>,
    at: Option<Decimal>,
    words: [u8; size_of::<usize>()],
    other: <usize as Of>::Field,
}

trait Of {
    type Field;
}

impl Of for usize {
    type Field = u64;
}

#[ringcall::message]
struct S;

#[ringcall::message]
struct T(u8, S);

#[ringcall::service(name = "market.Letters")]
trait Letters {
    async fn a(&self, a: A) -> A;
    async fn b(&self, self_: B) -> Result<B, C>;
    async fn c(&self, c: View<C>) -> S;
    async fn s(&self, call: &Context, held: S) -> T;
    async fn t(&self, held: &Context, call: T) -> B;
    async fn service(&self, mount: &Context, service: S);
    async fn table(&self, options: T, table: &Context);
    fn mount(&self, held: S, call: Responder<C, B>);
    #[method(one_way)]
    async fn shape(&self, channel: C);
    async fn r#type(&self, r#match: r#struct) -> r#struct;
}

struct Book;

impl Letters for Book {
    async fn a(&self, a: A) -> A {
        a
    }

    async fn b(&self, b: B) -> Result<B, C> {
        if b.value > b.tag { Ok(b) } else { Err(C::Shape(b)) }
    }

    async fn c(&self, _: View<C>) -> S {
        S
    }

    async fn s(&self, _: &Context, s: S) -> T {
        T(1, s)
    }

    async fn t(&self, _: &Context, t: T) -> B {
        B { shape: A { r#type: t.0 }, value: 2, tag: 3 }
    }

    async fn service(&self, _: &Context, _: S) {}

    async fn table(&self, _: T, _: &Context) {}

    fn mount(&self, _: S, responder: Responder<C, B>) {
        responder.send(Ok(C::r#Self_));
    }

    async fn shape(&self, _: C) {}

    async fn r#type(&self, argument: r#struct) -> r#struct {
        r#struct { r#fn: argument.r#fn }
    }
}

/// A service whose name is a keyword.
mod keyword {
    #[ringcall::service]
    pub(crate) trait r#type {
        async fn r#fn(&self);
    }

    impl r#type for super::Book {
        async fn r#fn(&self) {}
    }
}

/// What variants are told apart by may have any name.
mod tags {
    const TAG: u8 = b'B';
    const SHAPE: u8 = TAG + 1;

    #[ringcall::message]
    #[repr(u8)]
    pub(crate) enum Side {
        Buy = TAG,
        Sell,
        Short = SHAPE + 8,
    }
}

/// Services that have the names of type parameters.
mod parameters {
    #[ringcall::service]
    pub(crate) trait S {
        async fn s(&self, side: super::tags::Side) -> bool;
    }

    #[ringcall::service(send)]
    pub(crate) trait C {
        async fn c(&self);
        #[method(offload)]
        async fn offloaded(&self);
    }

    impl S for super::Book {
        async fn s(&self, _: super::tags::Side) -> bool {
            true
        }
    }

    impl C for super::Book {
        async fn c(&self) {}

        async fn offloaded(&self) {}
    }
}

#[test]
fn it_is_accepted() {
    let service = Book.into_letters();
    let table = ringcall::Service::table(&service);
    assert_eq!(table.methods()[9].full_name(), "market.Letters/type");
    let service = keyword::r#type::into_type(Book);
    let table = ringcall::Service::table(&service);
    assert!(table.methods()[0].full_name().ends_with(".type/fn"));
    let _ = LettersClient::<ringcall::Client>::r#type;
    let service = parameters::S::into_s(Book);
    let table = ringcall::Service::table(&service);
    assert!(table.methods()[0].full_name().ends_with(".S/s"));
    let _ = (service.get(), parameters::C::into_c(Book).get());
}

//! A framework that hides ringcall behind a path of its own.

mod framework {
    pub mod rpc {
        pub use ringcall::*;
    }
}

use framework::rpc;

#[rpc::message(crate = crate::re_export::framework::rpc)]
struct Symbol {
    code: String,
    at: Option<Box<Symbol>>,
}

#[rpc::message(crate = framework::rpc)]
struct Page<T> {
    items: Vec<T>,
}

#[rpc::service(crate = crate::re_export::framework::rpc, name = "market.Symbols", send)]
trait Symbols {
    async fn all(&self, cx: &rpc::SendContext, first: rpc::SharedView<Symbol>) -> Page<Symbol>;
}

struct Book;

impl Symbols for Book {
    async fn all(&self, _: &rpc::SendContext, first: rpc::SharedView<Symbol>) -> Page<Symbol> {
        Page { items: vec![first.to_owned()] }
    }
}

#[test]
fn it_is_accepted() {
    let service = Book.into_symbols();
    assert_eq!(rpc::Service::table(&service).name(), "market.Symbols");
}

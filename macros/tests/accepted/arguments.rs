//! Whatever a method may take and return.

use ringcall::{Body, Bytes, Context, Responder, SharedBody, SharedView, View};

#[ringcall::message]
struct Order {
    symbol: String,
    size: u32,
}

#[ringcall::message]
#[derive(Debug)]
enum Refused {
    Closed,
    TooLarge { max: u32 },
}

#[ringcall::service]
trait Orders {
    async fn nothing(&self);
    async fn by_view(&self, order: View<Order>) -> bool;
    async fn by_shared_view(&self, order: SharedView<Order>) -> String;
    async fn by_value(&self, order: Order) -> Order;
    async fn by_tuple(&self, order: (u32, String)) -> (u32, Option<String>);
    async fn bytes(&self, body: Bytes) -> Bytes;
    async fn body(&self, body: Body) -> Result<Bytes, Refused>;
    async fn shared_body(&self, body: SharedBody) -> Vec<u8>;
    async fn contexts(
        &self,
        cx: &Context,
        order: View<Order>,
        again: &Context,
    ) -> Result<(), Refused>;
    fn later(&self, cx: &Context, order: Order, responder: Responder<u64, Refused>);
    fn surely(&self, responder: Responder<u64>);
    #[method(one_way)]
    async fn seen(&self, cx: &Context, order: View<Order>);
    #[method(idempotent, deadline = "250us", offload, name = "total")]
    async fn sum(&self, sizes: View<Vec<u32>>) -> u32;
}

struct Book;

impl Orders for Book {
    async fn nothing(&self) {}

    async fn by_view(&self, order: View<Order>) -> bool {
        order.size > 0
    }

    async fn by_shared_view(&self, order: SharedView<Order>) -> String {
        order.symbol.as_str().to_owned()
    }

    async fn by_value(&self, order: Order) -> Order {
        order
    }

    async fn by_tuple(&self, order: (u32, String)) -> (u32, Option<String>) {
        (order.0, Some(order.1))
    }

    async fn bytes(&self, body: Bytes) -> Bytes {
        body
    }

    async fn body(&self, body: Body) -> Result<Bytes, Refused> {
        Ok(body.share().into())
    }

    async fn shared_body(&self, body: SharedBody) -> Vec<u8> {
        body.to_vec()
    }

    async fn contexts(&self, cx: &Context, _: View<Order>, _: &Context) -> Result<(), Refused> {
        if cx.is_cancelled() { Err(Refused::Closed) } else { Err(Refused::TooLarge { max: 1 }) }
    }

    fn later(&self, _: &Context, order: Order, responder: Responder<u64, Refused>) {
        responder.send(Ok(order.size.into()));
    }

    fn surely(&self, responder: Responder<u64>) {
        responder.send(Ok(1));
    }

    async fn seen(&self, _: &Context, _: View<Order>) {}

    async fn sum(&self, sizes: View<Vec<u32>>) -> u32 {
        sizes.iter().map(|size| size.to_native()).sum()
    }
}

#[test]
fn it_is_accepted() {
    let service = Book.into_orders();
    let table = ringcall::Service::table(&service);
    assert_eq!(table.methods().len(), 13);
    assert_eq!(table.methods()[12].name(), "total");
}

//! Handlers whose futures may move between threads.

use ringcall::{Body, Bytes, Responder, SendContext, SharedBody, SharedView, View};

#[ringcall::service(send)]
trait Orders {
    async fn view(&self, cx: &SendContext, order: SharedView<String>) -> bool;
    async fn value(&self, order: String) -> bool;
    async fn bytes(&self, body: Bytes, cx: &SendContext) -> Bytes;
    async fn body(&self, body: SharedBody) -> Bytes;
    // Not a future: what arrives may stay.
    fn later(&self, order: View<String>, responder: Responder<bool>);
    fn raw(&self, body: Body, responder: Responder<Bytes>);
}

struct Book;

impl Orders for Book {
    async fn view(&self, cx: &SendContext, order: SharedView<String>) -> bool {
        cx.sleep(std::time::Duration::from_millis(1)).await;
        order.is_empty()
    }

    async fn value(&self, order: String) -> bool {
        std::future::ready(()).await;
        order.is_empty()
    }

    async fn bytes(&self, body: Bytes, _: &SendContext) -> Bytes {
        body
    }

    async fn body(&self, body: SharedBody) -> Bytes {
        body.into()
    }

    fn later(&self, order: View<String>, responder: Responder<bool>) {
        responder.send(Ok(order.is_empty()));
    }

    fn raw(&self, body: Body, responder: Responder<Bytes>) {
        responder.send(Ok(body.share().into()));
    }
}

fn is_send(_: &impl Send) {}

#[test]
fn it_is_accepted() {
    let service = Book.into_orders();
    is_send(&service.get().value(String::new()));
}

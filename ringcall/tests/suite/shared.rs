//! One state that serves many services, and clients of it.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringcall::{CallError, Client, Context, Items, Responder, Server, Stream, View};

#[ringcall::service]
trait Shelf {
    async fn put(&self, count: u64) -> u64;
    async fn put_all(&self, counts: Items<View<u64>>) -> u64;
    async fn all(&self, cx: &Context) -> Result<impl Stream<Item = u64>, String>;
    fn later(&self, count: u64, responder: Responder<u64>);
}

#[ringcall::service(send)]
trait Till {
    async fn sum(&self) -> u64;
}

#[derive(Default)]
struct Shop {
    sum: AtomicU64,
}

impl Shop {
    fn add(&self, count: u64) -> u64 {
        self.sum.fetch_add(count, Ordering::Relaxed) + count
    }
}

impl Shelf for Shop {
    async fn put(&self, count: u64) -> u64 {
        self.add(count)
    }

    async fn put_all(&self, mut counts: Items<View<u64>>) -> u64 {
        while let Some(count) = counts.next().await {
            self.add(count.to_native());
        }
        self.add(0)
    }

    async fn all(&self, _: &Context) -> Result<impl Stream<Item = u64>, String> {
        Err::<ringcall::Subscription<u64>, _>(format!("{} of them", self.add(0)))
    }

    fn later(&self, count: u64, responder: Responder<u64>) {
        responder.send(Ok(self.add(count)));
    }
}

impl Till for Shop {
    async fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }
}

/// All of its methods, which leave 10 in it.
async fn use_shelf(shelf: &ShelfClient<Client>) {
    assert_eq!(shelf.put(&1).await.unwrap(), 1);
    assert_eq!(shelf.later(&2).await.unwrap(), 3);
    let mut upload = shelf.put_all().await.unwrap();
    upload.send(&3).await.unwrap();
    upload.send(&4).await.unwrap();
    assert_eq!(upload.finish().await.unwrap(), 10);
    let refused = shelf.all().await.map(drop).unwrap_err();
    assert!(matches!(refused, CallError::App(text) if text == "10 of them"));
}

fn wait(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(future);
}

#[test]
fn an_arc_serves_many_services() {
    let shop = Arc::new(Shop::default());
    let server = Server::bind("127.0.0.1:0")
        .service(Arc::clone(&shop).into_shelf())
        .service(Arc::clone(&shop).into_till())
        .start()
        .unwrap();
    let shelf = ShelfClient::connect(server.address()).wait().unwrap();
    wait(use_shelf(&shelf));
    assert_eq!(TillClient::new(shelf.channel().clone()).sum().wait().unwrap(), 10);
    assert_eq!(shop.sum.load(Ordering::Relaxed), 10);
}

#[test]
fn an_rc_does_on_its_shard() {
    let server = Server::bind("127.0.0.1:0")
        .service_per_shard(|_| Rc::new(Shop::default()).into_shelf())
        .start()
        .unwrap();
    let shelf = ShelfClient::connect(server.address()).wait().unwrap();
    wait(use_shelf(&shelf));
}

#[test]
fn a_client_is_shown_by_its_service_and_channel() {
    let server = Server::bind("127.0.0.1:0").service(Shop::default().into_till()).start().unwrap();
    let till = TillClient::connect(server.address()).wait().unwrap();
    let channel = format!("{:?}", till.channel());
    let shown = format!("TillClient {{ service: \"ringcall.Till\", channel: {channel} }}");
    assert_eq!(format!("{till:?}"), shown);
}

#[test]
fn settings_are_made_alike() {
    assert_eq!(ringcall::limits::Limits::new(), ringcall::limits::Limits::default());
    #[cfg(feature = "cluster")]
    {
        let new = ringcall::cluster::MethodSettings::new();
        let default = ringcall::cluster::MethodSettings::default();
        assert_eq!(format!("{new:?}"), format!("{default:?}"));
    }
}

//! One type for every channel.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::common::*;
use ringcall::filter::{ClientCall, Filtered};
use ringcall::{AnyChannel, CallError, Cause, Client, Compression, FailureClass, Status};

/// A program that does not know how its calls are made.
#[derive(Clone)]
struct App {
    kitchen: Arc<KitchenClient<AnyChannel>>,
}

async fn cook(app: App, order: Order) -> Result<Order, CallError<Rejected>> {
    Ok(app.kitchen.cook(&order).await?.to_owned())
}

/// A task as executors want it.
fn run<F: Future<Output: Send + 'static> + Send + 'static>(task: F) -> F::Output {
    let waiting = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(task)
    });
    waiting.join().expect("it ends")
}

fn apps(pair: Pair, address: &ringcall::Address) -> Vec<App> {
    let client = pair.secured(Client::connect(address)).wait().unwrap();
    let passing = |call: ClientCall| std::future::ready(Ok::<_, Status>(call));
    let filtered = Filtered::new(client.clone(), passing);
    let channels = [
        AnyChannel::new(client.clone()),
        AnyChannel::new(filtered),
        AnyChannel::new(AnyChannel::new(client)),
    ];
    let app = |channel| App { kitchen: Arc::new(KitchenClient::new(channel)) };
    channels.map(app).into()
}

#[test]
fn a_program_need_not_know_how_its_calls_are_made() {
    over_every_pair(|pair| {
        let (server, seen) = pair.serve();
        for app in apps(pair, server.address()) {
            assert_eq!(run(cook(app.clone(), order(7))).unwrap(), order(7));
            let none = Order { symbol: "NONE".into(), ..order(7) };
            let error = run(cook(app.clone(), none)).unwrap_err();
            assert!(matches!(error, CallError::App(Rejected::Unknown { .. })), "{error:?}");
            let tossed = seen.tossed.load(std::sync::atomic::Ordering::SeqCst);
            app.kitchen.toss(&1).wait().unwrap();
            eventually("it is there", || {
                seen.tossed.load(std::sync::atomic::Ordering::SeqCst) == tossed + 1
            });
            let late = app.kitchen.simmer(&60_000).deadline(Duration::from_millis(50)).wait();
            let failure = *late.unwrap_err().failure().expect("no handler answers");
            assert!(has_expired(failure.cause), "{failure:?}");
            // A body that is compressed, if the server reads that.
            let many = Order { note: Some("n".repeat(50_000)), ..order(8) };
            let packed = app.kitchen.cook(&many).compression(Some(Compression::Lz4)).wait();
            assert_eq!(packed.unwrap().to_owned(), many);
        }
    });
}

#[test]
fn a_call_that_was_given_up_is_given_up() {
    over_one_pair(|pair| {
        let (server, seen) = pair.serve();
        for (n, app) in (1..).zip(apps(pair, server.address())) {
            let call = app.kitchen.simmer(&60_000).deadline(Duration::from_secs(60));
            let mut call = Box::pin(call.into_future());
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(call.as_mut().poll(&mut cx).is_pending());
            app.kitchen.nothing().wait().unwrap();
            drop(call);
            eventually("its handler is dropped", || {
                seen.dropped.load(std::sync::atomic::Ordering::SeqCst) == n
            });
        }
        drop(server);
    });
}

#[test]
fn what_cannot_be_encoded_is_not_sent() {
    over_one_pair(|pair| {
        let (server, _) = pair.serve();
        let app = &apps(pair, server.address())[0];
        let large = Order { note: Some("n".repeat(80 << 20)), ..order(1) };
        let failure = *app.kitchen.cook(&large).wait().unwrap_err().failure().unwrap();
        assert_eq!(failure.class, FailureClass::NotSent, "{failure:?}");
        assert!(matches!(failure.cause, Cause::Encode | Cause::TooLarge { .. }), "{failure:?}");
    });
}

#[cfg(feature = "cluster")]
#[test]
fn a_balanced_channel_is_one_too() {
    use ringcall::cluster::discovery::{Instance, Listing};
    use ringcall::cluster::{Balanced, Clients, Settings};

    over_one_pair(|pair| {
        let (server, _) = pair.serve();
        let clients = Clients::over(pair.client).unwrap();
        let clients = clients.with(move |connect| pair.secured(connect));
        let balanced = Balanced::new(clients, Settings::new()).unwrap();
        let instance = Instance::new("kitchen", "a", server.address().clone());
        balanced.apply(&Listing::of(1, [instance]));
        let ready = balanced.ready();
        run(async move { ready.await.map_err(|failure| failure.to_string()) }).unwrap();
        let channel = AnyChannel::new(balanced);
        let app = App { kitchen: Arc::new(KitchenClient::new(channel)) };
        assert_eq!(run(cook(app, order(7))).unwrap(), order(7));
    });
}

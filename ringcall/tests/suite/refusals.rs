//! Handlers that refuse a call: nothing was done, and its caller knows it.

use std::time::Duration;

use crate::common::{PATIENT, Pair, over_every_pair};
use ringcall::{
    CallError, Cause, Client, Context, Failure, FailureClass, HandlerError, Handlers, Items,
    Refusal, Responder, RunningServer, SendContext, Status, Stream,
};

#[ringcall::message]
#[derive(Debug, PartialEq)]
struct NoSuch {
    id: u64,
}

#[ringcall::service(name = "test.Store")]
trait Store {
    /// Refused at once, or after a while.
    async fn put(&self, cx: &Context, wait_ms: u64) -> Result<(), Refusal>;
    /// There is no 13, and 14 is refused.
    async fn get(&self, id: u64) -> Result<u64, HandlerError<NoSuch>>;
    #[method(offload)]
    async fn scan(&self, id: u64) -> Result<u64, HandlerError<NoSuch>>;
    fn later(&self, id: u64, responder: Responder<u64, NoSuch>);
    async fn list(&self, id: u64) -> Result<impl Stream<Item = u64>, HandlerError<NoSuch>>;
    async fn sum(&self, numbers: Items<u64>) -> Result<u64, Refusal>;
}

fn get(id: u64) -> Result<u64, HandlerError<NoSuch>> {
    match id {
        13 => Err(NoSuch { id })?,
        14 => Err(busy())?,
        _ => Ok(id),
    }
}

fn busy() -> Refusal {
    Refusal::overloaded().retry_after(Duration::from_micros(49_001))
}

struct Shelf;

impl Store for Shelf {
    async fn put(&self, cx: &Context, wait_ms: u64) -> Result<(), Refusal> {
        if wait_ms > 0 {
            cx.sleep(Duration::from_millis(wait_ms)).await;
        }
        Err(busy())
    }

    async fn get(&self, id: u64) -> Result<u64, HandlerError<NoSuch>> {
        get(id)
    }

    async fn scan(&self, id: u64) -> Result<u64, HandlerError<NoSuch>> {
        get(id)
    }

    fn later(&self, id: u64, responder: Responder<u64, NoSuch>) {
        std::thread::spawn(move || match get(id) {
            Ok(value) => responder.send(Ok(value)),
            Err(HandlerError::App(error)) => responder.send(Err(error)),
            Err(HandlerError::Refused(refusal)) => responder.refuse(refusal),
        });
    }

    async fn list(&self, id: u64) -> Result<impl Stream<Item = u64>, HandlerError<NoSuch>> {
        get(id).map(|id| Once(Some(id)))
    }

    async fn sum(&self, _: Items<u64>) -> Result<u64, Refusal> {
        Err(busy())
    }
}

struct Once(Option<u64>);

impl Stream for Once {
    type Item = u64;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<u64>> {
        std::task::Poll::Ready(self.0.take())
    }
}

/// What a caller is told of one that was refused.
#[track_caller]
fn assert_busy<T, E: std::fmt::Debug>(end: Result<T, CallError<E>>) {
    let Err(CallError::Failed(failure)) = end else { panic!("it is refused") };
    assert_eq!(failure.class, FailureClass::Refused);
    assert_eq!(failure.cause, Cause::Status(Status::OVERLOADED));
    assert_eq!(failure.retry_after(), Some(Duration::from_millis(50)));
    assert!(failure.is_safe_to_retry() && !failure.forbids_retry());
}

#[track_caller]
fn assert_no_such<T>(end: Result<T, CallError<NoSuch>>) {
    let Err(CallError::App(error)) = end else { panic!("it is not there") };
    assert_eq!(error, NoSuch { id: 13 });
}

fn client(pair: Pair, server: &RunningServer) -> StoreClient<Client> {
    pair.secured(StoreClient::connect(server.address())).wait().unwrap().with_options(PATIENT)
}

#[test]
fn a_handler_refuses_a_call_wherever_it_runs() {
    over_every_pair(|pair| {
        for handlers in [Handlers::Shard, Handlers::Offload] {
            let server = pair.start(pair.bind().service(Shelf.into_store()).handlers(handlers));
            let store = client(pair, &server);
            assert_busy(store.put(&0).wait());
            assert_busy(store.put(&1).wait());
            assert_busy(store.get(&14).wait());
            assert_no_such(store.get(&13).wait());
            assert_eq!(store.get(&7).wait().unwrap(), 7);
            assert_busy(store.scan(&14).wait());
            assert_no_such(store.scan(&13).wait());
            assert_busy(store.later(&14).wait());
            assert_no_such(store.later(&13).wait());
            let mut listed = store.list(&7).wait().unwrap();
            assert_eq!(listed.next_wait().expect("one").unwrap(), 7);
            let refused = |id| match store.list(&id).wait() {
                Ok(mut items) => items.next_wait().expect("its end").map(drop),
                Err(error) => Err(error),
            };
            assert_busy(refused(14));
            assert_no_such(refused(13));
            let uploading = store.sum().wait().unwrap();
            assert_busy(uploading.finish_wait());
            assert!(server.drain().is_clean());
        }
    });
}

#[ringcall::service(send)]
trait Sent {
    async fn get(&self, cx: &SendContext, id: u64) -> Result<u64, HandlerError<NoSuch>>;
}

impl Sent for Shelf {
    async fn get(&self, _: &SendContext, id: u64) -> Result<u64, HandlerError<NoSuch>> {
        get(id)
    }
}

#[test]
fn so_does_one_on_an_executor_of_somebody_else() {
    over_every_pair(|pair| {
        let spawn = |call| {
            std::thread::spawn(move || futures_lite_block_on(call));
        };
        let server = pair.start(pair.bind().service_spawned(Shelf.into_sent(), spawn));
        let sent = pair.secured(SentClient::connect(server.address())).wait().unwrap();
        let sent = sent.with_options(PATIENT);
        assert_busy(sent.get(&14).wait());
        assert_no_such(sent.get(&13).wait());
        assert_eq!(sent.get(&7).wait().unwrap(), 7);
    });
}

fn futures_lite_block_on(call: ringcall::SpawnedCall) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(call);
}

#[test]
fn advice_is_whole_milliseconds_and_never_never() {
    let after = |time| Refusal::overloaded().retry_after(time).retry_after_ms();
    assert_eq!(after(Duration::ZERO), 0);
    assert_eq!(after(Duration::from_nanos(1)), 1);
    assert_eq!(after(Duration::from_micros(1001)), 2);
    assert_eq!(after(Duration::MAX), 65_534);
    let never = Refusal::forbidden().do_not_retry();
    let failure = Failure::from_status(never.status(), never.retry_after_ms()).unwrap();
    assert!(failure.forbids_retry() && failure.retry_after().is_none());
    assert!(failure.to_string().contains("not to try again"), "{failure}");
    assert_eq!(Refusal::new(Status::INTERNAL), None);
    assert_eq!(Refusal::new(Status::from_wire(0x4abc)).unwrap().status().to_wire(), 0x4abc);
}

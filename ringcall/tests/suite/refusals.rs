//! Handlers that refuse a call: nothing was done, and its caller knows it.

use std::time::Duration;

use crate::common::{PATIENT, Pair, over_every_pair};
use ringcall::{
    CallError, Cause, Client, Context, Failure, FailureClass, HandlerError, Handlers, Items,
    Missing, Refusal, Responder, RunningServer, SendContext, Status, Stream,
};

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct NoSuch {
    id: u64,
}

impl std::fmt::Display for NoSuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "there is no {}", self.id)
    }
}

#[ringcall::service(name = "test.Store")]
trait Store {
    /// Refused at once, or after a while.
    async fn put(&self, cx: &Context, wait_ms: u64) -> Result<(), Refusal>;
    /// There is no 13, 14 is refused, and 15 is on a disk that is broken.
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
        15 => Err(HandlerError::internal(std::io::Error::other("the disk is broken"))),
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
            Err(HandlerError::Refused(refusal)) => responder.refuse(refusal),
            Err(error) => responder.fail(error),
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

/// What a caller is told of a handler that has failed without an answer: not why.
#[track_caller]
fn assert_internal<T>(end: Result<T, CallError<impl std::fmt::Debug>>) {
    let Err(CallError::Failed(failure)) = end else { panic!("it has failed") };
    assert_eq!(failure, Failure::unknown(Cause::Status(Status::INTERNAL)));
    assert!(!failure.to_string().contains("disk"), "{failure}");
}

#[test]
fn a_handler_fails_for_a_reason_that_its_caller_is_not_told() {
    over_every_pair(|pair| {
        for handlers in [Handlers::Shard, Handlers::Offload] {
            let server = pair.start(pair.bind().service(Shelf.into_store()).handlers(handlers));
            let store = client(pair, &server);
            assert_internal(store.get(&15).wait());
            assert_internal(store.scan(&15).wait());
            assert_internal(store.later(&15).wait());
            let listed = match store.list(&15).wait() {
                Ok(mut items) => items.next_wait().expect("its end").map(drop),
                Err(error) => Err(error),
            };
            assert_internal(listed);
            assert_eq!(store.get(&7).wait().unwrap(), 7);
            assert!(server.drain().is_clean());
        }
        let spawn = |call| drop(std::thread::spawn(move || futures_lite_block_on(call)));
        let server = pair.start(pair.bind().service_spawned(Shelf.into_sent(), spawn));
        let sent = pair.secured(SentClient::connect(server.address())).wait().unwrap();
        assert_internal(sent.with_options(PATIENT).get(&15).wait());
    });
}

/// In front of the store: has its errors, and no store of its own.
#[ringcall::service(send)]
trait Front {
    async fn get(&self, cx: &SendContext, id: u64) -> Result<u64, HandlerError<NoSuch>>;
    async fn relay(&self, cx: &SendContext, id: u64) -> Result<u64, HandlerError<NoSuch>>;
    async fn far(&self, address: String) -> Result<u64, HandlerError<NoSuch>>;
    async fn blank(&self) -> Result<u64, HandlerError>;
}

struct Window(StoreClient<Client>);

impl Front for Window {
    async fn get(&self, cx: &SendContext, id: u64) -> Result<u64, HandlerError<NoSuch>> {
        let store = StoreClient::new(cx.client(self.0.channel()));
        Ok(store.get(&id).await?.to_native())
    }

    async fn relay(&self, _: &SendContext, id: u64) -> Result<u64, HandlerError<NoSuch>> {
        let found = self.0.get(&id).await.map_err(CallError::pass_on)?;
        Ok(found.to_native())
    }

    async fn far(&self, address: String) -> Result<u64, HandlerError<NoSuch>> {
        let store = StoreClient::connect(address).await?;
        store.sum().await?.finish().await?;
        Ok(store.get(&7).await?.to_native())
    }

    async fn blank(&self) -> Result<u64, HandlerError> {
        Err(HandlerError::internal("nothing here"))
    }
}

#[test]
fn a_handler_fails_with_what_its_own_calls_fail_with() {
    over_every_pair(|pair| {
        let server = pair.start(pair.bind().service(Shelf.into_store()));
        let window = Window(client(pair, &server));
        let front = pair.start(pair.bind().service(window.into_front()));
        let front = pair.secured(FrontClient::connect(front.address())).wait().unwrap();
        let front = front.with_options(PATIENT);
        assert_eq!(front.get(&7).wait().unwrap(), 7);
        assert_eq!(front.relay(&7).wait().unwrap(), 7);
        assert_no_such(front.get(&13).wait());
        assert_no_such(front.relay(&13).wait());
        // Its call did not run; whether the handler has done something before, nobody knows but itself.
        assert_internal(front.get(&14).wait());
        assert_busy(front.relay(&14).wait());
        assert_internal(front.get(&15).wait());
        assert_internal(front.relay(&15).wait());
        assert_internal(front.far(&"no place".to_owned()).wait());
        assert_internal(front.blank().wait());
    });
}

#[test]
fn all_that_a_caller_does_fails_with_one_error() {
    async fn fetch(address: &str, id: u64) -> Result<u64, CallError<NoSuch>> {
        let store = StoreClient::connect(address).await?;
        store.put(&0).await.map_err(CallError::into_failure).unwrap_err();
        Ok(store.get(&id).await?.to_native())
    }
    let server = ringcall::Server::bind("127.0.0.1:0").service(Shelf.into_store()).start().unwrap();
    let address = server.address().to_string();
    let fetch = |id| ringcall_block_on(fetch(&address, id));
    assert_eq!(fetch(7), Ok(7));
    let error = fetch(13).unwrap_err();
    let text = match &error {
        CallError::App(NoSuch { id }) => id.to_string(),
        CallError::Failed(failure) => failure.to_string(),
    };
    assert_eq!(text, "13");
    assert_eq!(error.to_string(), "the handler answered with an error: there is no 13");
    assert_eq!(error.app(), Some(&NoSuch { id: 13 }));
    assert_eq!(error.clone().map_app(|error| error.id), CallError::App(13));
    assert_eq!(error.into_app(), Ok(NoSuch { id: 13 }));
    let error: Box<dyn std::error::Error> = fetch(15).unwrap_err().into();
    assert!(error.to_string().contains("may have run"), "{error}");
    let busy = fetch(14).unwrap_err();
    assert_eq!(busy.app(), None);
    assert_eq!(busy.into_app().unwrap_err().status(), Some(Status::OVERLOADED));
}

fn ringcall_block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(future)
}

#[test]
fn what_is_passed_on_says_only_that_nothing_ran() {
    let advice =
        Failure { retry_after_ms: 30, ..Failure::refused(Cause::Status(Status::FORBIDDEN)) };
    let passed = Refusal::passing_on(&advice).unwrap();
    assert_eq!((passed.status(), passed.retry_after_ms()), (Status::OVERLOADED, 30));
    assert!(
        Refusal::passing_on(&Failure::not_sent(Cause::no_instance(Missing::NoneKnown))).is_some()
    );
    assert!(Refusal::passing_on(&Failure::unknown(Cause::Expired)).is_none());
}

//! Callers that share a quota, over real sockets.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use ringcall::cluster::discovery::{Instance, Listing};
use ringcall::cluster::{Balanced, CallLimit, Clients, Clock as _, Settings};
use ringcall::{Address, BlockOn, CallError, Cause, Client, MachineClock, RunningServer, Server};
use ringcall_registry::{Ask, NoShare, Quota, QuotaClient, QuotaKeeper, Quotas, Share};
use support::eventually;

#[ringcall::service(name = "test.Echo")]
trait Echo {
    #[method(idempotent, deadline = "10s")]
    async fn echo(&self, number: u64) -> u64;
}

struct Mirror;

impl Echo for Mirror {
    async fn echo(&self, number: u64) -> u64 {
        number
    }
}

fn serve(quotas: &Quotas) -> RunningServer {
    let server = Server::bind("127.0.0.1:0").service(Mirror.into_echo());
    server.service(quotas.clone().into_quota()).start().unwrap()
}

fn channel(server: &Address, limit: CallLimit) -> Balanced<Clients> {
    let mut settings = Settings::new();
    settings.limit = limit;
    let balanced = Balanced::new(Clients::new().unwrap(), settings).unwrap();
    balanced.apply(&Listing::of(1, [Instance::new("echo", "one", server.clone())]));
    balanced.block_on(balanced.ready().within(Duration::from_secs(30))).unwrap();
    balanced
}

/// Whether a call is refused by this side's own limit.
fn is_limited(echo: &EchoClient<Balanced<Clients>>) -> bool {
    match echo.echo(&1).wait() {
        Ok(_) => false,
        Err(CallError::Failed(failure)) => failure.cause == Cause::Limited,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_channel_goes_by_its_share_and_by_its_own_limit_without_one() {
    let quotas = Quotas::new(Duration::from_millis(600)).with("echo", 10);
    let server = serve(&quotas);
    // Alone it could make as many calls as it likes.
    let balanced = channel(server.address(), CallLimit::default());
    let echo = EchoClient::new(balanced.clone());
    assert!((0..100).all(|_| !is_limited(&echo)));
    let keeper = QuotaKeeper::start(server.address().to_string(), "echo", balanced.clone());
    let keeper = keeper.unwrap();
    eventually("it is held to its share", || is_limited(&echo));
    // A larger quota is a larger share.
    quotas.set("echo", 1_000_000);
    eventually("it may make more calls", || (0..200).all(|_| !is_limited(&echo)));
    quotas.set("echo", 10);
    eventually("it is held to its share again", || is_limited(&echo));
    drop(keeper);
    eventually("its own limit holds when its lease has ended", || {
        (0..200).all(|_| !is_limited(&echo))
    });
}

#[test]
fn callers_share_what_there_is() {
    let quotas = Quotas::new(Duration::from_millis(600)).with("echo", 1000);
    let server = serve(&quotas);
    let quota = QuotaClient::<Client>::connect(server.address()).wait().unwrap();
    let ask = |caller, demand_per_s| {
        let ask = Ask { quota: "echo".to_owned(), caller, demand_per_s };
        quota.share(&ask).wait().map_or(0, |share| share.per_s.to_native())
    };
    eventually("one that is alone gets all of it", || ask(1, 5000) == 1000);
    eventually("another one gets half of it", || (ask(1, 5000), ask(2, 5000)) == (500, 500));
    eventually("one that wants less gets less", || (ask(1, 5000), ask(2, 99)) == (876, 124));
}

#[test]
fn what_there_is_no_share_of_is_told() {
    let quotas = Quotas::new(Duration::from_secs(60)).with("one", 1);
    let server = serve(&quotas);
    let quota = QuotaClient::<Client>::connect(server.address()).wait().unwrap();
    let ask = |quota_: &str, caller| {
        let ask = Ask { quota: quota_.to_owned(), caller, demand_per_s: 1 };
        quota.share(&ask).wait().map(|share| share.per_s.to_native())
    };
    assert_eq!(ask("two", 1), Err(CallError::App(NoShare::NoSuchQuota)));
    // What was handed out before it started may be in force for a lease yet.
    assert_eq!(ask("one", 1), Err(CallError::App(NoShare::NotYet)));
    assert_eq!(ask("one", 2), Err(CallError::App(NoShare::TooManyCallers)));
}

/// Hands out one call a second, when the lease of it has long ended.
struct Late(Arc<AtomicU32>);

impl Quota for Late {
    #[expect(clippy::disallowed_methods, reason = "tests may sleep")]
    async fn share(&self, _: Ask) -> Result<Share, NoShare> {
        std::thread::sleep(Duration::from_millis(300));
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Share { per_s: 1, lease_ms: 200 })
    }
}

#[test]
fn a_share_that_arrives_when_its_lease_has_ended_is_none() {
    let asked = Arc::new(AtomicU32::new(0));
    let late = Server::bind("127.0.0.1:0").service(Late(Arc::clone(&asked)).into_quota());
    let late = late.start().unwrap();
    let server = Server::bind("127.0.0.1:0").service(Mirror.into_echo()).start().unwrap();
    let balanced = channel(server.address(), CallLimit::default());
    let echo = EchoClient::new(balanced.clone());
    let _keeper = QuotaKeeper::start(late.address().to_string(), "echo", balanced).unwrap();
    eventually("it has been asked for a while", || {
        assert!(!is_limited(&echo), "by what has ended");
        asked.load(Ordering::Relaxed) >= 4
    });
}

#[test]
fn many_channels_together_make_no_more_calls_than_the_quota() {
    let quotas = Quotas::new(Duration::from_millis(300)).with("echo", 500);
    let server = serve(&quotas);
    let few = CallLimit::per_second(1, 1);
    let channels: Vec<_> = (0..4).map(|_| channel(server.address(), few)).collect();
    let start = |channel: &Balanced<Clients>| {
        QuotaKeeper::start(server.address().to_string(), "echo", channel.clone()).unwrap()
    };
    let _keepers: Vec<_> = channels.iter().map(start).collect();
    let is_over = AtomicBool::new(false);
    // Each of them wants more than there is.
    std::thread::scope(|scope| {
        // Also if something is not as it should be: they would go on, and nobody would be told.
        let _ends = OnDrop(|| is_over.store(true, Ordering::Relaxed));
        for channel in &channels {
            scope.spawn(|| {
                let echo = EchoClient::new(channel.clone());
                while !is_over.load(Ordering::Relaxed) {
                    if is_limited(&echo) {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let made = || -> u64 {
            // Counted one after the other, while others count on.
            let made = |channel: &Balanced<Clients>| {
                let counts = channel.counts();
                counts.calls.saturating_sub(counts.limited)
            };
            channels.iter().map(made).sum()
        };
        let begun = MachineClock.now();
        eventually("they make calls", || made() > 2000);
        is_over.store(true, Ordering::Relaxed);
        // Two seconds' calls more: what was made before, bursts, and a share of one each that is newly there.
        let time = MachineClock.now().since(begun) + Duration::from_secs(2);
        assert!((made() as f64) <= 500.0 * time.as_secs_f64(), "{} in {time:?}", made());
    });
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

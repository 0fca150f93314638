//! What callers get when there is no answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::common::{PATIENT, Pair, over_every_pair, over_one_pair};
use ringcall::{
    Access, BadFallback, BlockingClient, CallError, Cause, Client, Encoded, FALLBACK_KEY,
    Fallbacks, RunningServer, Status, WithFallbacks,
};

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct NoSuch {
    symbol: String,
}

#[ringcall::service(name = "test.Desk")]
trait Desk {
    #[method(encoded)]
    async fn last(&self, symbol: String) -> Result<u64, NoSuch>;
    async fn guess(&self, symbol: String) -> Result<u64, NoSuch>;
    async fn count(&self) -> u64;
    #[method(one_way)]
    async fn note(&self, symbol: String);
}

/// Answers with the number of the call, while it works.
#[derive(Clone, Default)]
struct Clerk(Arc<State>);

#[derive(Default)]
struct State {
    calls: AtomicU64,
    last_is_broken: AtomicBool,
    guess_is_broken: AtomicBool,
}

impl State {
    fn break_down(&self, last: bool, guess: bool) {
        self.last_is_broken.store(last, Ordering::SeqCst);
        self.guess_is_broken.store(guess, Ordering::SeqCst);
    }

    fn answer(&self, is_broken: &AtomicBool, symbol: &str) -> Result<u64, NoSuch> {
        assert!(!is_broken.load(Ordering::SeqCst), "it is broken");
        match symbol {
            "NONE" => Err(NoSuch { symbol: symbol.to_owned() }),
            _ => Ok(self.calls.fetch_add(1, Ordering::SeqCst) + 1),
        }
    }
}

impl Desk for Clerk {
    async fn last(&self, symbol: String) -> Result<u64, NoSuch> {
        self.0.answer(&self.0.last_is_broken, &symbol)
    }

    async fn guess(&self, symbol: String) -> Result<u64, NoSuch> {
        self.0.answer(&self.0.guess_is_broken, &symbol).map(|number| number + 1000)
    }

    async fn count(&self) -> u64 {
        self.0.calls.load(Ordering::SeqCst)
    }

    async fn note(&self, _: String) {}
}

type Failed = Result<(), BadFallback>;

fn none() -> Fallbacks {
    Fallbacks::of(DeskClient::service_table())
}

fn serve(pair: Pair) -> (RunningServer, Arc<State>) {
    let clerk = Clerk::default();
    let state = Arc::clone(&clerk.0);
    let server = pair.bind().service(clerk.into_desk());
    let server = server.authorize_calls(|call| match call.credentials() {
        Some(_) => Access::forbidden("nobody with credentials"),
        None => Access::Allow,
    });
    (pair.start(server), state)
}

type Desks = DeskClient<WithFallbacks<Client>>;

fn connect(pair: Pair, server: &RunningServer, fallbacks: Fallbacks) -> Desks {
    let client = pair.secured(Client::connect(server.address())).wait().expect("it accepts");
    DeskClient::new(WithFallbacks::new(client, fallbacks)).with_options(PATIENT)
}

/// What came, and which kind of fallback it was.
fn last(desk: &Desks, symbol: &str) -> Result<(u64, Option<String>), CallError<NoSuch>> {
    let reply = desk.last(&symbol.to_owned()).with_metadata().wait();
    let kind = reply.metadata.text(FALLBACK_KEY).map(str::to_owned);
    reply.result.map(|number| (number.to_native(), kind))
}

fn of(number: u64, kind: &str) -> Result<(u64, Option<String>), CallError<NoSuch>> {
    Ok((number, Some(kind.to_owned())))
}

#[test]
fn a_value_comes_when_nobody_answers() -> Failed {
    let fallbacks = none().value("last", &7u64)?;
    over_every_pair(|pair| {
        let (server, clerk) = serve(pair);
        let desk = connect(pair, &server, fallbacks.clone());
        assert_eq!(last(&desk, "ABC"), Ok((1, None)));
        // Errors of the handler are answers.
        assert!(matches!(last(&desk, "NONE"), Err(CallError::App(_))));
        clerk.break_down(true, false);
        assert_eq!(last(&desk, "ABC"), of(7, "value"));
        server.stop();
        assert_eq!(last(&desk, "ABC"), of(7, "value"));
        assert!(desk.count().wait().is_err(), "it has none");
        assert_eq!(desk.channel().counts().values, 2);
    });
    Ok(())
}

#[test]
fn the_last_good_answer_is_one_to_the_same_question() -> Failed {
    let fallbacks = none().last_good("last")?.kept_max(2, 1000);
    over_every_pair(|pair| {
        let (server, clerk) = serve(pair);
        let desk = connect(pair, &server, fallbacks.clone());
        assert_eq!(last(&desk, "A"), Ok((1, None)));
        assert_eq!(last(&desk, "B"), Ok((2, None)));
        assert_eq!(last(&desk, "B"), Ok((3, None)));
        clerk.break_down(true, false);
        assert_eq!((last(&desk, "A"), last(&desk, "B")), (of(1, "kept"), of(3, "kept")));
        assert!(last(&desk, "C").is_err(), "nobody has asked that");
        assert!(desk.last(&"A".to_owned()).metadata("tenant", "other").wait().is_err());
        clerk.break_down(false, false);
        assert_eq!(last(&desk, "C"), Ok((4, None)));
        clerk.break_down(true, false);
        assert!(last(&desk, "A").is_err(), "two are kept");
        assert_eq!((last(&desk, "B"), last(&desk, "C")), (of(3, "kept"), of(4, "kept")));
        assert_eq!(desk.channel().counts().kept, 4);
    });
    Ok(())
}

/// However the question is sent: from 16 KiB on what is encoded already goes out from where it lies.
#[test]
fn a_question_that_is_encoded_already_is_the_same_question() -> Failed {
    let fallbacks = none().last_good("last")?;
    over_one_pair(|pair| {
        let (server, clerk) = serve(pair);
        let desk = connect(pair, &server, fallbacks.clone());
        let asked =
            |symbol: &str| desk.last_encoded(&Encoded::of(symbol)).wait().map(|it| it.to_native());
        let (short, long, other) = ("A".repeat(10), "B".repeat(20_000), "C".repeat(20_000));
        assert_eq!((asked(&short), asked(&long)), (Ok(1), Ok(2)));
        clerk.break_down(true, false);
        assert_eq!((asked(&short), asked(&long)), (Ok(1), Ok(2)));
        assert_eq!((last(&desk, &short), last(&desk, &long)), (of(1, "kept"), of(2, "kept")));
        assert!(asked(&other).is_err(), "nobody has asked that");
        server.stop();
    });
    Ok(())
}

#[test]
fn fallbacks_are_replaced_and_what_is_kept_stays() -> Failed {
    let keeps = none().last_good("last")?;
    let value = none().value("last", &7u64)?;
    over_one_pair(|pair| {
        let (server, clerk) = serve(pair);
        let desk = connect(pair, &server, none());
        clerk.break_down(true, false);
        assert!(last(&desk, "A").is_err(), "there is none");
        let fallbacks = desk.channel().clone();
        fallbacks.replace(keeps.clone());
        clerk.break_down(false, false);
        assert_eq!((last(&desk, "A"), last(&desk, "B")), (Ok((1, None)), Ok((2, None))));
        clerk.break_down(true, false);
        fallbacks.replace(keeps.clone().kept_max(1, 1000));
        assert!(last(&desk, "A").is_err(), "one is kept");
        assert_eq!(last(&desk, "B"), of(2, "kept"));
        fallbacks.replace(value.clone());
        assert_eq!(last(&desk, "B"), of(7, "value"));
        fallbacks.replace(keeps.clone());
        assert!(last(&desk, "B").is_err(), "it was not to be kept in between");
    });
    Ok(())
}

#[test]
fn another_method_is_asked_before_what_is_known() -> Failed {
    let fallbacks = none().value("last", &7u64)?.method("last", "guess")?;
    over_every_pair(|pair| {
        let (server, clerk) = serve(pair);
        let desk = connect(pair, &server, fallbacks.clone());
        clerk.break_down(true, false);
        assert_eq!(last(&desk, "ABC"), of(1001, "method"));
        clerk.break_down(true, true);
        assert_eq!(last(&desk, "ABC"), of(7, "value"));
        let counts = desk.channel().counts();
        assert_eq!((counts.methods, counts.values), (2, 1));
    });
    Ok(())
}

#[test]
fn what_a_caller_may_not_see_is_not_shown_because_it_was_seen() -> Failed {
    let fallbacks = none().last_good("last")?.value("last", &7u64)?;
    over_one_pair(|pair| {
        let (server, _) = serve(pair);
        let desk = connect(pair, &server, fallbacks.clone());
        assert_eq!(last(&desk, "ABC"), Ok((1, None)));
        let (symbol, channel) = ("ABC".to_owned(), desk.channel().channel().clone());
        let shows =
            ringcall::WithCredentials::new(channel, &ringcall::Credentials::new(b"me").unwrap());
        let desk = DeskClient::new(WithFallbacks::new(shows, fallbacks.clone()));
        let Err(CallError::Failed(failure)) = desk.last(&symbol).wait() else { panic!("it fails") };
        assert_eq!(failure.cause, Cause::Status(Status::FORBIDDEN));
    });
    Ok(())
}

#[test]
fn channels_of_one_thread_have_fallbacks_too() -> Failed {
    let fallbacks = none().value("last", &7u64)?;
    over_every_pair(|pair| {
        let (server, clerk) = serve(pair);
        clerk.break_down(true, false);
        let client: BlockingClient = pair.blocking(&server);
        let desk = DeskClient::new(WithFallbacks::new(client, fallbacks.clone()));
        let desk = desk.with_options(PATIENT);
        assert_eq!(desk.last(&"ABC".to_owned()).wait().unwrap(), 7);
        assert!(desk.note(&"one-way calls pass".to_owned()).wait().is_ok());
    });
    Ok(())
}

#[test]
fn fallbacks_that_cannot_be_are_found() {
    let error = |made: Result<Fallbacks, BadFallback>| made.map(drop).expect_err("it cannot be");
    assert!(matches!(error(none().last_good("lst")), BadFallback::UnknownMethod(_)));
    assert!(matches!(error(none().value("last", &7u32)), BadFallback::Types(_)));
    assert!(matches!(error(none().method("last", "count")), BadFallback::Types(_)));
    assert!(matches!(error(none().last_good("note")), BadFallback::NoAnswer(_)));
}

#[cfg(feature = "cluster")]
#[test]
fn a_method_that_a_rule_denies_is_switched_off_at_once() -> Failed {
    use ringcall::cluster::discovery::{Instance, Listing};
    use ringcall::cluster::route::{Action, Match, Rule, Rules};
    use ringcall::cluster::{Balanced, Clients, Settings};

    let fallbacks = none().value("last", &7u64)?;
    over_one_pair(|pair| {
        let pair = Pair { is_secured: false, ..pair };
        let (server, clerk) = serve(pair);
        let balanced = Balanced::new(Clients::new().unwrap(), Settings::new()).unwrap();
        balanced.apply(&Listing::of(1, [Instance::new("desk", "a", server.address().clone())]));
        let desk = DeskClient::new(WithFallbacks::new(balanced.clone(), fallbacks.clone()));
        let desk = desk.with_options(PATIENT);
        let last = || desk.last(&"ABC".to_owned()).wait().map(|number| number.to_native());
        let guess = || desk.guess(&"ABC".to_owned()).wait();
        assert_eq!(last(), Ok(1));
        let off = Action::Deny(Status::UNSUPPORTED);
        let off = |name: &str| Rule::new(name, Match::all().method(name), off.clone());
        let rules = Rules::new(1).with(off("test.Desk/last")).with(off("test.Desk/guess"));
        balanced.route(rules).unwrap();
        assert_eq!(last(), Ok(7));
        let Err(CallError::Failed(failure)) = guess() else { panic!("it is off") };
        assert_eq!(failure.cause, Cause::Status(Status::UNSUPPORTED));
        assert!(failure.is_safe_to_retry(), "it was not made");
        balanced.route(Rules::new(2)).unwrap();
        assert_eq!((last(), clerk.calls.load(Ordering::SeqCst)), (Ok(2), 2));
    });
    Ok(())
}

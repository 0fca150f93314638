//! Settings, rules and limits as users keep them: what the documentation shows is what is read.

use std::time::Duration;

use ringcall::CallerKey;
use ringcall::cluster::hedge::HedgeConfig;
use ringcall::cluster::recovery::RecoveryConfig;
use ringcall::cluster::route::{
    Action, By, Caller, Groups, Match, Route, Rule, Rules, Subset, Text, Zones,
};
use ringcall::cluster::{Aperture, CallLimit, MethodSettings, Settings};
use ringcall::limits::{AdaptiveConfig, Limits, QueueRule, Rate};
use ringcall_core::Status;

const PAGE: &str = include_str!("../../../docs/CLUSTER.md");

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    client: Settings,
    routing: Rules,
    server: Limits,
}

/// The texts of the page.
fn documented() -> Vec<&'static str> {
    let after = PAGE.split("```toml\n").skip(1);
    after.map(|text| text.split_once("```").expect("it ends").0).collect()
}

fn read(text: &str) -> File {
    toml::from_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// The defaults, as the page writes them, and what is off by default.
fn client() -> Settings {
    let mut hedge = HedgeConfig::default();
    hedge.tied = Some(Duration::from_millis(2));
    let mut buy = MethodSettings::default();
    (buy.breaker, buy.retry.attempts) = (None, 1);
    let mut settings = Settings::new().with_method("shop.Orders/buy", buy);
    settings.limit = CallLimit::per_second(1000, 5);
    settings.limit.in_flight = Some(200);
    settings.recovery = Some(RecoveryConfig::new(6));
    settings.aperture = Some(Aperture::of(3, 10));
    settings.groups = Some(Groups::of("blue").or("green"));
    settings.zones = Some(Zones::default());
    settings.caller = Caller::in_zone("z1").with_tag("env", "test");
    settings.method.attempt_timeout = Some(Duration::from_millis(250));
    settings.method.limit = CallLimit::in_flight(100);
    settings.method.hedge = Some(hedge);
    settings
}

fn routing() -> Rules {
    let version = |version: &str| Subset::all().version(version);
    let large = Match::all()
        .method("shop.Orders/buy")
        .tag("env", Text::Present)
        .field("country", Text::begins("d"))
        .number("lots", 1000..=5000);
    let excluded = Subset::named(["a1", "a2"])
        .group("blue")
        .zone(Text::begins("eu-"))
        .tag("disk", "slow")
        .alike("env");
    let sides = [(95, Route::to(version("1"))), (5, Route::to(version("2")).or(version("1")))];
    let list = || Match::all().method("shop.Orders/list");
    let five = Match::all().service("shop.Orders").percent(5, By::Metadata("user".into()));
    let testers = Action::route(Route::to(version("2")).or_any());
    Rules::new(7)
        .with(Rule::new("testers", Match::all().metadata("x-test", "yes"), testers))
        .with(Rule::new("five in a hundred", five, Action::route(Route::to(version("2")))))
        .with(Rule::new("large orders", large, Action::Exclude(excluded)))
        .with(Rule::new(
            "copies",
            Match::all().methods("shop.Orders/").per_10_000(50, By::Chance),
            Action::Mirror(version("3")),
        ))
        .with(Rule::new(
            "two sides",
            Match::all().service("shop.Offers"),
            Action::split(sides, By::Key),
        ))
        .with(Rule::new("slow", list(), Action::Delay(Duration::from_millis(20))))
        .with(Rule::new("off", list(), Action::Deny(Status::UNSUPPORTED)))
}

fn server() -> Limits {
    let buy = Rate::per_second(100).burst(20).method("shop.Orders/buy").each(CallerKey::Address);
    Limits::default()
        .queue(QueueRule::default())
        .concurrency(512)
        .reserve(5, 10)
        .concurrency_of_each(CallerKey::metadata("tenant"), 50)
        .method("shop.Orders/buy", 64)
        .method("shop.Orders/list", AdaptiveConfig::default())
        .rate(Rate::per_second(20_000))
        .rate(buy)
}

#[test]
fn what_is_documented_can_be_read_and_is_the_default() {
    let texts = documented();
    assert_eq!(texts.len(), 1);
    let file = read(texts[0]);
    assert_eq!(format!("{:#?}", file.client), format!("{:#?}", client()));
    assert_eq!(file.routing, routing());
    assert_eq!(file.server, server());
}

#[test]
fn what_is_not_written_is_as_by_default() {
    let file = read("");
    assert_eq!(format!("{:?}", file.client), format!("{:?}", Settings::default()));
    assert_eq!((file.routing, file.server), (Rules::default(), Limits::default()));
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let cases = [
        ("[client]\nretry_percent = 5\nretries = 3\n", "line 3", "unknown field `retries`"),
        (
            "\n[client.method.retry]\nbackoff = \"soon\"\n",
            "line 3",
            "\"soon\" is not a time such as",
        ),
        ("[client.health]\nwindow = \"0s\"\n", "line 1", "health.window must be 1 ms to a day"),
        ("[server]\nconcurrency = 0\n", "line 2", "`concurrency` must be at least 1"),
        ("[[server.rates]]\ncalls = 0\n", "line 1", "`rates` must be of 1 call or more"),
        ("[server]\nqueue = 5\n", "line 2", "expected a table of `target` and `interval`"),
    ];
    for (text, line, what) in cases {
        let error = toml::from_str::<File>(text).unwrap_err().to_string();
        assert!(error.contains(line) && error.contains(what), "{text}: {error}");
    }
}

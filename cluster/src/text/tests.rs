//! What is read, and what is said of what cannot be.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::balance::{Balance, Balancing, PrequalConfig, WeightedRandom};
use crate::breaker::BreakerConfig;
use crate::discovery::{DampingConfig, DiscoveryConfig, DnsConfig, DnsFamily, GuardConfig};
use crate::health::HealthConfig;
use crate::hedge::HedgeConfig;
use crate::recovery::RecoveryConfig;
use crate::retry::RetryConfig;
use crate::route::{
    Action, By, Caller, Fields, Groups, Match, Route, Rule, Rules, Subset, Text, Zones,
};
use crate::{Aperture, CallLimit, LimitLease, MethodSettings, MirrorConfig, Settings};
use ringcall_core::Status;

fn read<T: DeserializeOwned>(text: &str) -> T {
    toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// What is said of a text that cannot be read.
fn wrong<T: DeserializeOwned + Debug>(text: &str) -> String {
    match toml::from_str::<T>(text) {
        Ok(it) => panic!("{text}: {it:?}"),
        Err(error) => error.message().to_owned(),
    }
}

fn all_wrong<T: DeserializeOwned + Debug>(cases: &[(&str, &str)]) {
    for (text, told) in cases {
        let said = wrong::<T>(text);
        assert!(said.contains(told), "{text}: {said}");
    }
}

fn shown(it: &impl Debug) -> String {
    format!("{it:#?}")
}

const FULL: &str = r#"
    balancing = { prequal = { cold_percent = 50, pool_max = 8, looks = 2, reuse_max = 3, age_max = "2s", probe_percent = 300, probes_per_s_max = 50 } }
    warm_up = "30s"
    retry_percent = 20
    retry_floor_per_s = 3
    limit = { in_flight = 200, per_s = 50, burst = 5 }
    aperture = { index = 3, peers = 10, instances_min = 4 }
    report_one_in = 1000

    [health]
    consecutive = 6
    success_percent = 70
    window = "1min"
    calls_min = 7
    deviation_tenths = 25
    ejection = "1s 500ms"
    ejection_max = "1min"
    ejected_percent = 30
    panic_percent = 40

    [recovery]
    working_min = 6
    hold = "20s"

    [caller]
    zone = "z1"
    tags = { env = "test" }

    [groups]
    own = "blue"
    fallbacks = ["green", "red"]
    or_any = true

    [zones]
    spill_percent = 60
    instances_min = 2

    [mirror]
    in_flight_max = 8
    bytes_max = 65_536

    [method]
    attempt_timeout = "250ms"
    idempotency_keys = true
    retry = { attempts = 5, backoff = "10ms", backoff_max = "100ms", errors = ["APPLICATION_ERROR", 0x8001] }
    hedge = { quantile_percent = 99, refresh = "1s", extra_percent = 2, tied = "2ms" }
    breaker = { errors_percent = 20, calls_min = 10, window = "5s", cool = "1s", cool_max = "10s", successes = 1 }
    limit = { per_s = 9 }

    [methods."quotes.Quotes/last"]
    breaker = false
    hedge = true
"#;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Without `..`, so that a field that is new has to be in the text as well.
fn full() -> Settings {
    let mut last = MethodSettings::default();
    (last.breaker, last.hedge) = (None, Some(HedgeConfig::default()));
    Settings {
        balancing: Balancing::Prequal(full_prequal()),
        health: HealthConfig {
            consecutive: 6,
            success_percent: 70,
            window: ms(60_000),
            calls_min: 7,
            deviation_tenths: 25,
            ejection: ms(1500),
            ejection_max: ms(60_000),
            ejected_percent: 30,
            panic_percent: 40,
        },
        custom_health: None,
        recovery: Some(RecoveryConfig { working_min: 6, hold: ms(20_000) }),
        warm_up: ms(30_000),
        custom_warm_up: None,
        retry_percent: 20,
        retry_floor_per_s: 3,
        limit: CallLimit { in_flight: Some(200), per_s: Some(50), burst: 5 },
        aperture: Some(Aperture { index: 3, peers: 10, instances_min: 4 }),
        custom_aperture: None,
        caller: Caller::in_zone("z1").with_tag("env", "test"),
        groups: Some(Groups {
            own: "blue".into(),
            fallbacks: vec!["green".into(), "red".into()],
            or_any: true,
        }),
        zones: Some(Zones { spill_percent: 60, instances_min: 2 }),
        fields: Fields::new(),
        mirror: MirrorConfig { in_flight_max: 8, bytes_max: 65_536 },
        report_one_in: 1000,
        method: full_method(),
        methods: BTreeMap::from([("quotes.Quotes/last".into(), last)]),
    }
}

fn full_prequal() -> PrequalConfig {
    PrequalConfig {
        cold_percent: 50,
        pool_max: 8,
        looks: 2,
        reuse_max: 3,
        age_max: ms(2000),
        probe_percent: 300,
        probes_per_s_max: 50,
    }
}

fn full_method() -> MethodSettings {
    MethodSettings {
        retry: RetryConfig {
            attempts: 5,
            backoff: ms(10),
            backoff_max: ms(100),
            errors: vec![Status::APPLICATION_ERROR, Status::from_wire(0x8001)],
        },
        custom_retry: None,
        hedge: Some(HedgeConfig {
            quantile_percent: 99,
            refresh: ms(1000),
            extra_percent: 2,
            tied: Some(ms(2)),
        }),
        custom_hedge: None,
        breaker: Some(BreakerConfig {
            errors_percent: 20,
            calls_min: 10,
            window: ms(5000),
            cool: ms(1000),
            cool_max: ms(10_000),
            successes: 1,
        }),
        custom_breaker: None,
        limit: CallLimit { in_flight: None, per_s: Some(9), burst: 1 },
        attempt_timeout: Some(ms(250)),
        idempotency_keys: true,
    }
}

#[test]
fn what_is_not_said_is_as_by_default() {
    assert_eq!(shown(&read::<Settings>("")), shown(&Settings::default()));
    assert_eq!(shown(&read::<MethodSettings>("")), shown(&MethodSettings::default()));
    assert_eq!(read::<Rules>(""), Rules::default());
    assert_eq!(read::<DiscoveryConfig>(""), DiscoveryConfig::default());
    assert_eq!(read::<DnsConfig>(""), DnsConfig::default());
    let lacking = "aperture = { index = 1, peers = 2 }\nrecovery = { working_min = 3 }\ngroups = { own = \"\" }";
    let settings: Settings = read(lacking);
    assert_eq!(settings.aperture, Some(Aperture::of(1, 2)));
    assert_eq!(settings.recovery, Some(RecoveryConfig::new(3)));
    assert_eq!(settings.groups, Some(Groups::of("")));
    let zones = |text| read::<Settings>(text).zones;
    assert_eq!(
        (zones("zones = true"), zones("zones = {}")),
        (Some(Zones::default()), Some(Zones::default()))
    );
}

#[test]
fn all_that_is_no_code_can_be_said() {
    let settings: Settings = read(FULL);
    assert_eq!(shown(&settings), shown(&full()));
    // Of what is asked of that, its name is shown.
    assert!(matches!(settings.balancing, Balancing::Prequal(config) if config == full_prequal()));
    for (word, name) in [
        ("peak_ewma", "PeakEwma"),
        ("weighted_random", "WeightedRandom"),
        ("smooth_round_robin", "SmoothRoundRobin"),
        ("least_active", "LeastActive"),
        ("ring", "Ring"),
        ("maglev", "Maglev"),
        ("reported", "Reported"),
        ("prequal", "Prequal"),
    ] {
        let settings: Settings = read(&format!("balancing = {word:?}"));
        assert_eq!(shown(&settings.balancing), name);
    }
    let text = r#"
        guard = { vanish_percent = 20, window = "10s", hold = "5min" }
        damping = { quiet = "1ms", quiet_max = "2ms", half_life = "3s" }
    "#;
    let guard = GuardConfig { vanish_percent: 20, window: ms(10_000), hold: ms(300_000) };
    let damping = DampingConfig { quiet: ms(1), quiet_max: ms(2), half_life: ms(3000) };
    assert_eq!(read::<DiscoveryConfig>(text), DiscoveryConfig { guard, damping });
    let dns = DnsConfig { family: DnsFamily::V6First, ttl_min: ms(1000), ttl_max: ms(2000) };
    let text = "family = \"v6_first\"\nttl_min = \"1s\"\nttl_max = \"2s\"";
    assert_eq!(read::<DnsConfig>(text), dns);
    let lease = LimitLease { limit: CallLimit::in_flight(3), time: ms(5000) };
    assert_eq!(read::<LimitLease>("limit = { in_flight = 3 }\ntime = \"5s\""), lease);
}

#[test]
fn json_says_the_same() {
    let table: toml::Table = read(FULL);
    let text = serde_json::to_string(&table).unwrap();
    assert_eq!(shown(&serde_json::from_str::<Settings>(&text).unwrap()), shown(&full()));
    // JSON has a word for nothing.
    let text = r#"{ "method": { "breaker": null, "attempt_timeout": null }, "zones": null }"#;
    let settings: Settings = serde_json::from_str(text).unwrap();
    assert_eq!(settings.method.breaker, None);
}

#[test]
fn what_is_wrong_with_settings_is_told() {
    let breaker = "a table of settings, true for its defaults or false for none";
    all_wrong::<Settings>(&[
        ("retries = 5", "unknown field `retries`, expected one of `balancing`, `health`"),
        ("health = { windows = \"1s\" }", "unknown field `windows`, expected one of `consecutive`"),
        // Code is not written in files.
        ("custom_health = {}", "unknown field `custom_health`"),
        (
            "warm_up = 5",
            "invalid type: integer `5`, expected a time such as \"250ms\", \"5s\" or \"10min\"",
        ),
        (
            "warm_up = \"soon\"",
            "\"soon\" is not a time such as \"250ms\", \"5s\" or \"10min\": expected number",
        ),
        (
            "warm_up = \"5\"",
            "\"5\" is not a time such as \"250ms\", \"5s\" or \"10min\": time unit needed",
        ),
        ("warm_up = \"2days\"", "the setting warm_up must be 0 to a day"),
        ("health = { window = \"0s\" }", "the setting health.window must be 1 ms to a day"),
        ("health = { success_percent = 101 }", "health.success_percent must be 0 to 100"),
        ("health = { success_percent = -1 }", "invalid value: integer `-1`, expected u32"),
        ("retry_percent = \"10 %\"", "invalid type: string \"10 %\", expected u32"),
        (
            "balancing = \"random\"",
            "string \"random\", expected \"peak_ewma\", \"weighted_random\"",
        ),
        ("balancing = { ring = 5 }", "unknown variant `ring`, expected `prequal`"),
        ("balancing = { prequal = { pool_max = 1 } }", "prequal.pool_max must be 2 to 1024"),
        ("balancing = { prequal = {}, ring = {} }", "` is one too many, for \"peak_ewma\""),
        ("aperture = { index = 1 }", "missing field `peers`"),
        ("aperture = { index = 2, peers = 2 }", "aperture.index must be less than aperture.peers"),
        ("recovery = { hold = \"1s\" }", "missing field `working_min`"),
        ("groups = { own = \"a\", or = [] }", "unknown field `or`, expected one of `own`"),
        ("[methods.last]", "string \"last\", expected a method, named like package.Service/method"),
        ("[methods.\"a.B/c\"]\nlimit = { burst = 0 }", "limit.burst must be 1 to 1000000"),
        ("method = { breaker = \"off\" }", breaker),
        ("method = { breaker = { window = \"9s\", calls = 1 } }", "unknown field `calls`"),
        ("method = { breaker = { successes = 0 } }", "breaker.successes must be more than 0"),
        ("method = { hedge = { tied = 1 } }", "expected a time such as"),
        ("method = { retry = { attempts = 9 } }", "retry.attempts must be 1 to 5"),
        ("method = { retry = { errors = [\"OK\"] } }", "retry.errors must be statuses of errors"),
        (
            "method = { retry = { errors = [\"NO\"] } }",
            "string \"NO\", expected the number of a status, or its name: OK UNSUPPORTED",
        ),
        (
            "method = { retry = { errors = [65536] } }",
            "integer `65536`, expected the number of a status",
        ),
    ]);
    all_wrong::<DiscoveryConfig>(&[
        ("guard = { vanish_percent = 200 }", "guard.vanish_percent must be 0 to 100"),
        ("damping = { half_life = \"0s\" }", "damping.half_life must be 1 ms to a day"),
    ]);
    all_wrong::<DnsConfig>(&[
        ("family = \"v4\"", "unknown variant `v4`, expected one of `v4_first`, `v6_first`, `both`"),
        ("ttl_max = \"1s\"", "dns.ttl_max must be dns.ttl_min or more"),
    ]);
    all_wrong::<LimitLease>(&[
        ("limit = {}", "missing field `time`"),
        ("limit = {}\ntime = \"0s\"", "lease.time must be 1 ms to a day"),
    ]);
}

#[test]
fn where_it_is_wrong_is_told() {
    let text = "retry_percent = 5\n\n[methods.\"a.B/c\"]\nretry = { attempts = 7 }\n";
    let error = toml::from_str::<Settings>(text).unwrap_err().to_string();
    assert!(error.contains("line 3"), "{error}");
}

const RULES: &str = r#"
    version = 7

    [[rules]]
    name = "testers"
    when = { metadata = { x-test = "yes" }, service = "shop.Orders" }
    then = { route = [{ version = "2" }] }

    [[rules]]
    name = "large"
    [rules.when]
    method = "shop.Orders/buy"
    field = { user = { begins = "a" }, country = { is = "de" } }
    number = { lots = { from = 1000 }, price = { from = 1, to = 5 }, age = { to = 9 } }
    tag = { env = { present = true }, old = { present = false } }
    percent = 0.07
    by = { metadata = "user" }
    [rules.then]
    exclude = { names = ["a1", "a2"], group = "blue", zone = { begins = "eu-" }, tag = { disk = "fast" }, alike = ["env"] }

    [[rules]]
    name = "copies"
    when = { methods = "shop.", percent = 5 }
    then = { mirror = { version = "3" } }

    [[rules]]
    name = "split"
    when.percent = 50
    when.by = "key"
    then.split.by = { field = "user" }
    then.split.routes = [
        { weight = 5, to = [{ version = "2" }, "any"] },
        { weight = 95, to = ["any"] },
    ]

    [[rules]]
    name = "slow"
    when = { percent = 12.5, by = "chance" }
    then = { delay = "20ms" }

    [[rules]]
    name = "off"
    then = { deny = "UNSUPPORTED" }
"#;

fn rules() -> Rules {
    let version = |version: &str| Subset::all().version(version);
    let large = Match::all()
        .method("shop.Orders/buy")
        .tag("env", Text::Present)
        .tag("old", Text::Absent)
        .field("country", "de")
        .field("user", Text::begins("a"))
        .number("age", 0..=9)
        .number("lots", 1000..=u64::MAX)
        .number("price", 1..=5)
        .per_10_000(7, By::Metadata("user".into()));
    let fast = Subset::named(["a1", "a2"])
        .group("blue")
        .zone(Text::begins("eu-"))
        .tag("disk", "fast")
        .alike("env");
    let halves = [(5, Route::to(version("2")).or_any()), (95, Route::to(Subset::all()))];
    Rules::new(7)
        .with(Rule::new(
            "testers",
            Match::all().service("shop.Orders").metadata("x-test", "yes"),
            Action::route(Route::to(version("2"))),
        ))
        .with(Rule::new("large", large, Action::Exclude(fast)))
        .with(Rule::new(
            "copies",
            Match::all().methods("shop.").percent(5, By::Chance),
            Action::Mirror(version("3")),
        ))
        .with(Rule::new(
            "split",
            Match::all().percent(50, By::Key),
            Action::split(halves, By::Field("user".into())),
        ))
        .with(Rule::new("slow", Match::all().per_10_000(1250, By::Chance), Action::Delay(ms(20))))
        .with(Rule::new("off", Match::all(), Action::Deny(Status::UNSUPPORTED)))
}

#[test]
fn rules_are_what_a_program_makes() {
    assert_eq!(read::<Rules>(RULES), rules());
    let table: toml::Table = read(RULES);
    let text = serde_json::to_string(&table).unwrap();
    assert_eq!(serde_json::from_str::<Rules>(&text).unwrap(), rules());
}

#[test]
fn what_is_wrong_with_rules_is_told() {
    let share = "a share in percent, 0 to 100, with two digits behind the point at most";
    let when = |when: &str| {
        format!("[[rules]]\nname = \"a\"\nwhen = {when}\nthen = {{ deny = \"FORBIDDEN\" }}")
    };
    let then = |then: &str| format!("[[rules]]\nname = \"a\"\nthen = {then}");
    let off = then("{ deny = \"OVERLOADED\" }");
    let cases = [
        ("versions = 5".to_owned(), "unknown field `versions`, expected `version` or `rules`"),
        ("[[rules]]\nname = \"a\"".to_owned(), "missing field `then`"),
        (off.replace("\"a\"", "\"\""), "the rule \"\": a text is empty, or longer than 256 bytes"),
        (format!("{off}\n{off}"), "the rule \"a\": another one has its name"),
        (off.replace("name", "nam"), "unknown field `nam`, expected one of `name`, `when`, `then`"),
        (
            when("{ service = \"a\", method = \"a/b\" }"),
            "only one can be said of `service`, `method` and `methods`",
        ),
        (
            when("{ metadata = { \"X y\" = \"a\" } }"),
            "the rule \"a\": metadata cannot have such a key",
        ),
        (when("{ metadata = { x = 5 } }"), "integer `5`, expected a text, { is = \"a text\" }"),
        (
            when("{ metadata = { x = { ends = \"a\" } } }"),
            "unknown variant `ends`, expected one of `is`, `begins`, `present`",
        ),
        (
            when("{ metadata = { x = { is = \"a\", begins = \"b\" } } }"),
            "` is one too many, for a text, {",
        ),
        (
            when("{ number = { x = { from = 5, to = 4 } } }"),
            "the rule \"a\": a range has no numbers",
        ),
        (when("{ percent = 101 }"), share),
        (when("{ percent = 0.001 }"), share),
        (when("{ percent = nan }"), share),
        (when("{ percent = \"5 %\" }"), share),
        (when("{ by = \"key\" }"), "`by` says how a share is chosen, and `percent` says of none"),
        (
            when("{ percent = 5, by = \"user\" }"),
            "string \"user\", expected \"chance\", \"key\", { metadata = \"a key\" }",
        ),
        (then("\"deny\""), "string \"deny\", expected one of { route = [lanes] }"),
        (then("{ drop = 1 }"), "unknown variant `drop`, expected one of `route`, `split`"),
        (then("{ deny = \"FORBIDDEN\", delay = \"1s\" }"), "` is one too many, for one of { route"),
        (then("{ deny = \"INTERNAL\" }"), "its status does not say that the call was refused"),
        (then("{ delay = \"2h\" }"), "the rule \"a\": a delay is more than an hour"),
        (then("{ route = [] }"), "a route has a lane at least: [\"any\"] is to any instance"),
        (then("{ route = [\"all\"] }"), "string \"all\", expected \"any\", or a table of `names`"),
        (
            then("{ split = { routes = [] } }"),
            "a split has no routes, too many, or weights that do not add up",
        ),
        (then("{ split = { routes = [{ to = [\"any\"] }] } }"), "missing field `weight`"),
    ];
    for (text, told) in cases {
        all_wrong::<Rules>(&[(&text, told)]);
    }
    let many: String =
        (0..129).map(|n| off.replace("\"a\"", &format!("\"{n}\"\n")) + "\n").collect();
    all_wrong::<Rules>(&[(&many, "there are more than 128 rules")]);
}

#[test]
fn code_stays_where_a_text_can_say_nothing_of_it() {
    let balance = || Box::new(WeightedRandom) as Box<dyn Balance>;
    let retry = |attempts| {
        let config = RetryConfig { attempts, ..RetryConfig::default() };
        Some(Arc::new(config) as Arc<dyn crate::retry::RetryPolicy>)
    };
    let mut before = Settings::new();
    before.balancing = Balancing::Custom(Arc::new(balance));
    before.custom_health = Some(Arc::new(HealthConfig::default()));
    before.fields = Fields::new().number("it", |it: &u64| *it);
    before.method.custom_retry = retry(2);
    let last = MethodSettings { custom_retry: retry(1), ..MethodSettings::default() };
    before = before.with_method("quotes.Quotes/last", last);
    before = before.with_method("quotes.Quotes/plain", MethodSettings::default());

    let text = "retry_percent = 3\nmethod.retry.attempts = 4\n[methods.\"quotes.Quotes/new\"]\nbreaker = false";
    let after = read::<Settings>(text).with_code_of(&before);
    assert_eq!(after.retry_percent, 3, "what a text says holds");
    assert!(matches!(after.balancing, Balancing::Custom(_)));
    assert!(after.custom_health.is_some());
    assert_eq!(shown(&after.fields), shown(&before.fields));
    let of = |name: &str| {
        let settings = after.of(ringcall_core::method_id(name));
        (settings.retry.attempts, settings.breaker.is_some(), shown(&settings.custom_retry))
    };
    assert_eq!(of("quotes.Quotes/any"), (4, true, shown(&before.method.custom_retry)));
    assert_eq!(of("quotes.Quotes/last"), (4, true, shown(&retry(1))));
    assert_eq!(of("quotes.Quotes/new"), (3, false, shown(&before.method.custom_retry)));
    assert_eq!(of("quotes.Quotes/plain"), (4, true, "None".to_owned()), "it had no code");

    before.method.custom_retry = None;
    let after = read::<Settings>("").with_code_of(&before);
    assert_eq!(after.methods.len(), 1, "of methods without code nothing is left");
}

/// Values as somebody might write them, or nearly.
fn values() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "prequal",
        "peak_ewma",
        "any",
        "key",
        "chance",
        "OVERLOADED",
        "OK",
        "5s",
        "0s",
        "1 day 1ns",
        "9999999999years",
        "1.5s",
        "a.B/c",
        "/",
        "",
        "x",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0u64..200).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        words.prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        let keys = prop::sample::select(vec![
            "balancing",
            "prequal",
            "health",
            "window",
            "method",
            "methods",
            "a.B/c",
            "retry",
            "hedge",
            "tied",
            "breaker",
            "limit",
            "per_s",
            "burst",
            "errors",
            "attempts",
            "aperture",
            "index",
            "peers",
            "recovery",
            "working_min",
            "zones",
            "groups",
            "own",
            "fallbacks",
            "caller",
            "tag",
            "warm_up",
            "attempt_timeout",
            "version",
            "rules",
            "name",
            "when",
            "then",
            "metadata",
            "number",
            "from",
            "to",
            "percent",
            "by",
            "route",
            "split",
            "routes",
            "weight",
            "exclude",
            "mirror",
            "deny",
            "delay",
            "names",
            "zone",
            "alike",
            "is",
            "begins",
            "present",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((keys, inner), 0..4).prop_map(|all| all
                .into_iter()
                .map(|(key, it)| (key.to_owned(), it))
                .collect::<Value>()),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_is_read_makes_sense(value in values(), key in prop::sample::select(vec!["method", "health", "balancing", "aperture"])) {
        let under = json!({ key: value.clone() });
        for value in [&value, &under] {
            if let Ok(settings) = serde_json::from_value::<Settings>(value.clone()) {
                prop_assert!(settings.check().is_ok());
            }
        }
        let rule = json!({ "rules": [{ "name": "a", "when": value.clone(), "then": { "delay": "1s" } }, { "name": "b", "then": value.clone() }] });
        for value in [value, rule] {
            if let Ok(rules) = serde_json::from_value::<Rules>(value) {
                prop_assert!(rules.check().is_ok());
            }
        }
    }

    #[test]
    fn no_text_is_too_strange(text in ".{0,200}", time in "[0-9]{0,25}\\.?[0-9]{0,12} ?(ns|us|ms|s|min|h|days|years|)") {
        let _any = toml::from_str::<Settings>(&text);
        let _any = toml::from_str::<Rules>(&text);
        if let Ok(settings) = toml::from_str::<Settings>(&format!("warm_up = {time:?}")) {
            prop_assert!(settings.check().is_ok());
        }
    }

    #[test]
    fn a_share_is_what_was_written(parts in 0u32..=10_000) {
        let percent = f64::from(parts) / 100.0;
        let text = format!("[[rules]]\nname = \"a\"\nwhen = {{ percent = {percent} }}\nthen = {{ delay = \"1s\" }}");
        let all = Match::all().per_10_000(parts, By::Chance);
        let rules = Rules::new(0).with(Rule::new("a", all, Action::Delay(ms(1000))));
        prop_assert_eq!(read::<Rules>(&text), rules);
    }
}

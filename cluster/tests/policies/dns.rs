//! Names of the DNS as a source, over a resolver that answers as it is told, in a time that passes when it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringcall_cluster::discovery::{
    Alarm, Discovery, DiscoveryConfig, DnsAnswer, DnsConfig, DnsFailure, DnsFamily, DnsKind,
    DnsQuery, DnsRecord, DnsSource, Instance, Resolve, Source, Update, Wanted,
};
use ringcall_core::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn at(s: u64) -> Instant {
    Instant::from_nanos(s * 1_000_000_000)
}

type Answer = Result<DnsAnswer, DnsFailure>;

/// What a name server says, and what it was asked.
#[derive(Clone, Debug, Default)]
struct Script(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    answers: BTreeMap<(String, DnsKind), Answer>,
    asked: Vec<String>,
    open: Vec<DnsQuery>,
    is_silent: bool,
}

impl Script {
    fn says(&self, name: &str, kind: DnsKind, answer: Answer) {
        self.0.lock().unwrap().answers.insert((name.into(), kind), answer);
    }

    fn hosts(&self, name: &str, ttl: u64, addresses: &[&str]) {
        let kind = if addresses[0].contains(':') { DnsKind::Aaaa } else { DnsKind::A };
        let records = addresses.iter().map(|it| DnsRecord::Address(it.parse().unwrap())).collect();
        self.says(name, kind, Ok(DnsAnswer { records, ttl: SECOND * ttl as u32 }));
    }

    /// Priority, weight, port, host.
    fn services(&self, name: &str, ttl: u64, all: &[(u16, u16, u16, &str)]) {
        let record = |&(priority, weight, port, host): &(u16, u16, u16, &str)| DnsRecord::Service {
            priority,
            weight,
            port,
            host: host.into(),
        };
        let records = all.iter().map(record).collect();
        self.says(name, DnsKind::Srv, Ok(DnsAnswer { records, ttl: SECOND * ttl as u32 }));
    }

    fn fails(&self, name: &str, kind: DnsKind) {
        self.says(name, kind, Err(DnsFailure::Failed("timed out".into())));
    }

    fn has_none(&self, name: &str) {
        self.says(name, DnsKind::A, Err(DnsFailure::NoRecords));
        self.says(name, DnsKind::Aaaa, Err(DnsFailure::NoRecords));
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }
}

impl Resolve for Script {
    fn ask(&mut self, query: DnsQuery) {
        let mut said = self.0.lock().unwrap();
        said.asked.push(format!("{} {:?}", query.name, query.kind));
        said.open.push(query);
    }

    fn poll_answer(&mut self) -> Option<(DnsQuery, Answer)> {
        let mut said = self.0.lock().unwrap();
        let query = if said.is_silent { None } else { said.open.pop() }?;
        let answer = said.answers.get(&(query.name.clone(), query.kind)).cloned();
        Some((query, answer.unwrap_or(Err(DnsFailure::NoRecords))))
    }
}

fn host(config: DnsConfig) -> (DnsSource<Script>, Script) {
    let script = Script::default();
    (DnsSource::host("s", "h", 7000, config, script.clone()).unwrap().with_seed(1), script)
}

fn srv() -> (DnsSource<Script>, Script) {
    let script = Script::default();
    (DnsSource::srv("s", "_s", DnsConfig::default(), script.clone()).unwrap().with_seed(1), script)
}

fn family(family: DnsFamily) -> DnsConfig {
    let mut config = DnsConfig::default();
    config.family = family;
    config
}

fn instances(update: Option<Update>) -> Vec<Instance> {
    match update {
        Some(Update::Snapshot { snapshot, .. }) => snapshot.instances,
        other => panic!("not a snapshot: {other:?}"),
    }
}

fn names(update: Option<Update>) -> Vec<String> {
    instances(update).into_iter().map(|it| it.name).collect()
}

fn outage(update: Option<Update>) -> String {
    match update {
        Some(Update::Outage(reason)) => reason,
        other => panic!("not an outage: {other:?}"),
    }
}

#[test]
fn a_host_is_an_instance_for_each_address() {
    let (mut source, script) = host(DnsConfig::default());
    script.hosts("h", 60, &["10.0.0.2", "10.0.0.1"]);
    let found = instances(source.poll_update(at(1)));
    let names: Vec<&str> = found.iter().map(|it| &it.name[..]).collect();
    assert_eq!(names, ["10.0.0.1:7000", "10.0.0.2:7000"]);
    assert!(found.iter().all(|it| it.service == "s" && it.weight == 100 && it.check().is_ok()));
    assert!(found.iter().all(|it| it.tls_name.as_deref() == Some("h")), "not the address");
    assert_eq!(script.asked(), ["h A"]);
}

#[test]
fn g17_names_are_asked_for_by_their_ttl_within_bounds() {
    let (mut source, script) = host(DnsConfig::default());
    let mut now = 1;
    // The TTL, and after how many seconds it is asked for again at the earliest and at the latest.
    for (ttl, earliest, latest) in [(60, 60, 67), (0, 5, 7), (86_400, 300, 331)] {
        script.hosts("h", ttl, &["10.0.0.1"]);
        source.poll_update(at(now));
        assert_eq!(script.asked(), ["h A"]);
        source.poll_update(at(now + earliest - 1));
        assert_eq!(script.asked(), [""; 0], "not before {earliest} s, with a TTL of {ttl} s");
        now += latest;
    }
    // Many callers do not ask at once.
    let mut first = |_| {
        let mut source =
            DnsSource::host("s", "h", 1, DnsConfig::default(), script.clone()).unwrap();
        script.hosts("h", 100, &["10.0.0.1"]);
        source.poll_update(at(1));
        script.asked();
        let is_asked = |s: &u64| {
            source.poll_update(at(*s));
            !script.asked().is_empty()
        };
        (101..112).find(is_asked).unwrap()
    };
    let mut moments: Vec<u64> = (0..100).map(&mut first).collect();
    moments.sort_unstable();
    moments.dedup();
    assert!(moments.len() >= 8, "{moments:?}");
}

#[test]
fn g17_what_cannot_be_resolved_keeps_its_last_addresses() {
    let (mut source, script) = host(DnsConfig::default());
    let mut discovery = Discovery::new(Wanted::service("s"), DiscoveryConfig::default()).unwrap();
    let mut now = 1;
    let mut look = |seconds: u64| {
        now += seconds;
        while let Some(update) = source.poll_update(at(now)) {
            discovery.handle_update(at(now), update);
        }
        discovery.handle_timeout(at(now + 1));
        let alarms: Vec<Alarm> = std::iter::from_fn(|| discovery.poll_alarm()).collect();
        (discovery.listing().instances.len(), alarms)
    };
    script.hosts("h", 5, &["10.0.0.1", "10.0.0.2"]);
    assert_eq!(look(0), (2, vec![]));
    // The name server does not answer, says that there is no such name, and then what is no address.
    script.fails("h", DnsKind::A);
    assert_eq!(look(10), (2, vec![Alarm::Outage("h: timed out".into())]));
    assert_eq!(look(400), (2, vec![]), "it is said once");
    script.has_none("h");
    assert_eq!(look(400), (2, vec![Alarm::Outage("h: there are no addresses".into())]));
    script.hosts("h", 5, &["0.0.0.0"]);
    let (left, alarms) = look(400);
    assert_eq!(left, 2);
    assert!(matches!(alarms[..], [Alarm::Invalid { .. }, ..]), "{alarms:?}");
    script.hosts("h", 5, &["10.0.0.2", "10.0.0.3"]);
    look(400);
    assert_eq!(look(1).0, 3, "one that vanished with half of the list is held");
}

#[test]
fn g17_names_that_cannot_be_resolved_are_asked_for_less_often() {
    let (mut source, script) = host(DnsConfig::default());
    script.fails("h", DnsKind::A);
    let mut asked = Vec::new();
    for s in 1..2000 {
        source.poll_update(at(s));
        if !script.asked().is_empty() {
            asked.push(s);
        }
    }
    let pauses: Vec<u64> = asked.windows(2).map(|two| two[1] - two[0]).collect();
    let expected = [5, 10, 20, 40, 80, 160, 300, 300, 300];
    assert!(pauses.len() >= expected.len(), "{pauses:?}");
    for (pause, expected) in pauses.iter().zip(expected) {
        assert!((expected..=expected + expected / 10 + 1).contains(pause), "{pauses:?}");
    }
}

#[test]
fn g17_of_two_families_one_counts_unless_both_are_wanted() {
    let all = |script: &Script| {
        script.hosts("h", 5, &["10.0.0.1"]);
        script.hosts("h", 5, &["fd00::1"]);
    };
    for (which, expected, asked) in [
        (DnsFamily::V4First, &["10.0.0.1:7000"][..], &["h A"][..]),
        (DnsFamily::V6First, &["[fd00::1]:7000"], &["h Aaaa"]),
        (DnsFamily::Both, &["10.0.0.1:7000", "[fd00::1]:7000"], &["h A", "h Aaaa"]),
    ] {
        let (mut source, script) = host(family(which));
        all(&script);
        assert_eq!(names(source.poll_update(at(1))), expected);
        assert_eq!(script.asked(), asked);
    }
    // The other one where there is none of the first, and back.
    let (mut source, script) = host(family(DnsFamily::V4First));
    all(&script);
    script.says("h", DnsKind::A, Err(DnsFailure::NoRecords));
    assert_eq!(names(source.poll_update(at(1))), ["[fd00::1]:7000"]);
    assert_eq!(script.asked(), ["h A", "h Aaaa"]);
    all(&script);
    assert_eq!(names(source.poll_update(at(10))), ["10.0.0.1:7000"]);
    // That nobody can say what the first has is no reason to take the second.
    script.fails("h", DnsKind::A);
    assert_eq!(outage(source.poll_update(at(20))), "h: timed out");
    assert_eq!(source.poll_update(at(21)), None);
    // With both, a family that has gone is gone, and one that nobody can say is not.
    let (mut source, script) = host(family(DnsFamily::Both));
    all(&script);
    source.poll_update(at(1));
    script.fails("h", DnsKind::A);
    assert_eq!(outage(source.poll_update(at(10))), "h: timed out");
    assert_eq!(source.poll_update(at(11)), None);
    script.says("h", DnsKind::A, Err(DnsFailure::NoRecords));
    assert_eq!(names(source.poll_update(at(30))), ["[fd00::1]:7000"]);
}

#[test]
fn a_service_names_hosts_ports_weights_and_priorities() {
    let (mut source, script) = srv();
    let all = [(10, 60, 7001, "a"), (10, 20, 7002, "b"), (10, 10, 7003, "c"), (20, 0, 7004, "d")];
    script.services("_s", 60, &all);
    script.hosts("a", 60, &["10.0.0.1"]);
    script.hosts("b", 60, &["10.0.0.2", "10.0.0.3"]);
    script.hosts("c", 60, &["10.0.0.4"]);
    script.hosts("d", 60, &["10.0.0.5"]);
    let found = instances(source.poll_update(at(1)));
    let said: Vec<(&str, u16, u32, &str)> = found
        .iter()
        .map(|it| (&it.name[..], it.priority, it.weight, &it.tags["host"][..]))
        .collect();
    // Of 90 in all each has three hundredths for one of a hundred on average; b has two addresses for its share.
    let expected = [
        ("10.0.0.1:7001", 10, 200, "a"),
        ("10.0.0.2:7002", 10, 33, "b"),
        ("10.0.0.3:7002", 10, 33, "b"),
        ("10.0.0.4:7003", 10, 33, "c"),
        ("10.0.0.5:7004", 20, 100, "d"),
    ];
    assert_eq!(said, expected);
    // A weight of 0 among others gets the smallest share that there is, and a service may say that it is not there.
    script.services("_s", 60, &[(0, 0, 7001, "a"), (0, 65_535, 7002, "c")]);
    let found = instances(source.poll_update(at(100)));
    assert_eq!(found.iter().map(|it| it.weight).collect::<Vec<_>>(), [1, 200]);
    script.services("_s", 60, &[(0, 0, 0, ".")]);
    assert_eq!(outage(source.poll_update(at(200))), "_s: it names no hosts");
}

#[test]
fn g17_hosts_of_a_service_fail_each_for_itself() {
    let (mut source, script) = srv();
    script.services("_s", 60, &[(0, 1, 1, "a"), (0, 1, 2, "b"), (0, 1, 3, "new")]);
    script.hosts("a", 60, &["10.0.0.1"]);
    script.hosts("b", 30, &["10.0.0.2"]);
    script.fails("new", DnsKind::A);
    assert_eq!(outage(source.poll_update(at(1))), "new: timed out");
    assert_eq!(names(source.poll_update(at(2))), ["10.0.0.1:1", "10.0.0.2:2"]);
    script.hosts("a", 60, &["10.0.0.9"]);
    script.hosts("new", 60, &["10.0.0.3"]);
    script.fails("b", DnsKind::A);
    assert_eq!(outage(source.poll_update(at(10))), "b: timed out");
    assert_eq!(names(source.poll_update(at(11))), ["10.0.0.9:1", "10.0.0.2:2", "10.0.0.3:3"]);
    // Without the list of hosts, all stays as it is.
    script.fails("_s", DnsKind::Srv);
    assert_eq!(outage(source.poll_update(at(100))), "_s: timed out");
    assert_eq!(source.poll_update(at(101)), None);
    // A host that is not named any more is gone, and not remembered.
    script.services("_s", 60, &[(0, 1, 1, "a")]);
    assert_eq!(names(source.poll_update(at(200))), ["10.0.0.9:1"]);
    script.services("_s", 60, &[(0, 1, 1, "a"), (0, 1, 2, "b")]);
    assert_eq!(outage(source.poll_update(at(400))), "b: timed out");
    assert_eq!(source.poll_update(at(401)), None);
}

#[test]
fn a_shorter_ttl_of_a_host_counts_for_its_service() {
    let (mut source, script) = srv();
    script.services("_s", 300, &[(0, 1, 1, "a")]);
    script.hosts("a", 20, &["10.0.0.1"]);
    source.poll_update(at(1));
    assert_eq!(script.asked(), ["_s Srv", "a A"]);
    source.poll_update(at(20));
    assert_eq!(script.asked(), [""; 0]);
    source.poll_update(at(24));
    assert_eq!(script.asked(), ["_s Srv", "a A"]);
}

#[test]
fn nothing_waits_for_a_resolver_that_is_silent() {
    let (mut source, script) = host(DnsConfig::default());
    script.0.lock().unwrap().is_silent = true;
    for s in 1..1000 {
        assert_eq!(source.poll_update(at(s)), None);
    }
    assert_eq!(script.asked(), ["h A"], "nor is it asked again before it has answered");
}

#[test]
fn bounds_that_make_no_sense_are_told() {
    let bad = |change: fn(&mut DnsConfig)| {
        let mut config = DnsConfig::default();
        change(&mut config);
        let source = DnsSource::host("s", "h", 1, config, Script::default());
        source.err().map(|error| error.name)
    };
    assert_eq!(bad(|_| {}), None);
    assert_eq!(bad(|it| it.ttl_min = Duration::ZERO), Some("dns.ttl_min"));
    assert_eq!(bad(|it| it.ttl_max = SECOND), Some("dns.ttl_max"));
}

//! A centre of settings over real sockets, on a real disk.

mod support;

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use ringcall::cluster::discovery::wall_clock_ms;
use ringcall::{CallError, Client, Context, RunningServer, Server, ShardConfig, Stream};
use ringcall_registry::{
    BadDirectory, Centre, CentreConfig, Condition, ConfigWatch, Configuration as _,
    ConfigurationClient, ConfigurationReplication, Configured, Declined, ListKeys, Put, Remove,
    Setting, SettingNews, SettingRecord, SettingSaid, Stamp, Tending, WatchedKey,
};
use support::{Folder, eventually, files};

const LONG: Duration = Duration::from_secs(30);

/// A node that serves.
struct Serving {
    server: Option<RunningServer>,
    centre: Centre,
    _tending: Tending,
}

impl Serving {
    fn stop(mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }
}

/// Nodes at sockets, with directories, of their own.
struct Nodes(Folder);

impl Nodes {
    fn new() -> Nodes {
        Nodes(Folder::new())
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.0.path(&format!("{name}.d"))
    }

    fn config(&self, name: &str, all: &[&str]) -> CentreConfig {
        let mut config = CentreConfig::default();
        config.peers = self.0.addresses(all);
        config.directory = Some(self.directory(name));
        config
    }

    /// A node that knows of all these, and keeps settings.
    fn node(&self, name: &str, all: &[&str]) -> Serving {
        self.node_with(name, self.config(name, all))
    }

    fn node_with(&self, name: &str, config: CentreConfig) -> Serving {
        let centre = Centre::open(config).unwrap();
        let tending = centre.start(ShardConfig::default()).unwrap();
        let server = Server::bind(self.0.address(name).as_str())
            .service(centre.clone().into_configuration())
            .service(centre.clone().into_configuration_replication());
        Serving { server: Some(server.start().unwrap()), centre, _tending: tending }
    }

    fn at(&self, name: &str) -> Operator {
        Operator(ConfigurationClient::connect(self.0.address(name).as_str()).wait().unwrap())
    }

    /// Waits until all of these nodes have exactly that.
    fn agree(&self, names: &[&str], expected: &[(&str, &str)]) {
        for name in names {
            let operator = self.at(name);
            eventually(&format!("{name} has {expected:?}"), || operator.all() == owned(expected));
        }
    }

    /// Follows a setting, and hands on what is to be put in force. What begins with "bad" is refused.
    fn follow(&self, watch: ConfigWatch) -> (Configured, Receiver<String>) {
        let (texts, taken) = channel();
        let apply = move |text: &str| {
            if text.starts_with("bad") {
                return Err("it is bad");
            }
            if text.starts_with("panic") {
                panic!("as it was told to");
            }
            texts.send(text.to_owned()).map_err(|_| "nobody listens")
        };
        (watch.start(apply).unwrap(), taken)
    }

    fn watch(&self, names: &[&str], key: &str) -> ConfigWatch {
        ConfigWatch::new(self.0.addresses(names), key)
    }
}

fn owned(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
}

struct Operator(ConfigurationClient<Client>);

impl Operator {
    /// Puts a text if that may be, as soon as the node takes any.
    fn try_put(&self, key: &str, text: &str, condition: Condition) -> Result<Stamp, Declined> {
        let put = Put { key: key.to_owned(), text: text.to_owned(), condition };
        started(|| answer(self.0.put(&put).wait().map(|version| version.to_owned())))
    }

    fn put(&self, key: &str, text: &str) -> Stamp {
        self.try_put(key, text, Condition::Any).unwrap_or_else(|declined| panic!("{declined}"))
    }

    fn remove(&self, key: &str, condition: Condition) -> Result<Stamp, Declined> {
        let remove = Remove { key: key.to_owned(), condition };
        started(|| answer(self.0.remove(&remove).wait().map(|version| version.to_owned())))
    }

    fn get(&self, key: &str) -> Result<Setting, Declined> {
        answer(self.0.get(&key.to_owned()).wait().map(|setting| setting.to_owned()))
    }

    fn list(&self, prefix: &str, after: &str) -> Vec<String> {
        let list = ListKeys { prefix: prefix.to_owned(), after: after.to_owned() };
        let listed = self.0.list(&list).wait().unwrap().to_owned();
        listed.into_iter().map(|listed| listed.key).collect()
    }

    fn all(&self) -> Vec<(String, String)> {
        let setting = |key: String| self.get(&key).ok().map(|setting| (key, setting.text));
        self.list("", "").into_iter().filter_map(setting).collect()
    }
}

/// What a node says that has heard what others have: until then it takes nothing.
fn started(ask: impl Fn() -> Result<Stamp, Declined>) -> Result<Stamp, Declined> {
    let mut said = Err(Declined::Starting);
    eventually("the node takes settings", || {
        said = ask();
        said != Err(Declined::Starting)
    });
    said
}

fn answer<T>(result: Result<T, CallError<Declined>>) -> Result<T, Declined> {
    result.map_err(|error| match error {
        CallError::App(declined) => declined,
        error => panic!("{error}"),
    })
}

fn watched(key: &str, heard: Option<Stamp>) -> WatchedKey {
    WatchedKey { key: key.to_owned(), heard }
}

#[test]
fn a_setting_is_put_and_read_and_changed_and_removed() {
    let nodes = Nodes::new();
    let _node = nodes.node("a", &[]);
    let operator = nodes.at("a");
    assert_eq!(operator.get("shop"), Err(Declined::NoSuchKey));
    let first = operator.try_put("shop", "one", Condition::Absent).unwrap();
    let one = Setting { key: "shop".into(), text: "one".into(), version: first };
    assert_eq!(operator.get("shop"), Ok(one.clone()));
    // Two operators have read it, and both change it.
    let at = Condition::At { version: first };
    let second = operator.try_put("shop", "two", at).unwrap();
    let two = Setting { text: "two".into(), version: second, ..one };
    let conflict = Err(Declined::Conflict { there: Some(two.clone()) });
    assert_eq!(operator.try_put("shop", "three", at), conflict);
    assert_eq!(operator.try_put("shop", "three", Condition::Absent), conflict);
    assert_eq!(operator.remove("shop", at), conflict);
    assert_eq!(operator.get("shop"), Ok(two));
    operator.put("shop/eu", "");
    assert_eq!(
        (operator.list("", ""), operator.list("", "shop")),
        (vec!["shop".to_owned(), "shop/eu".to_owned()], vec!["shop/eu".to_owned()],)
    );
    assert!(operator.remove("shop", Condition::At { version: second }).unwrap() > second);
    assert_eq!(operator.remove("shop", Condition::Any), Err(Declined::NoSuchKey));
    nodes.agree(&["a"], &[("shop/eu", "")]);
}

#[test]
fn what_one_node_is_told_all_of_them_know() {
    let nodes = Nodes::new();
    let all = ["a", "b", "c"];
    let _serving = all.map(|name| nodes.node(name, &all));
    nodes.at("a").put("one", "1");
    nodes.at("b").put("two", "2");
    nodes.agree(&all, &[("one", "1"), ("two", "2")]);
    nodes.at("c").put("one", "3");
    nodes.agree(&all, &[("one", "3"), ("two", "2")]);
    nodes.at("a").remove("two", Condition::Any).unwrap();
    nodes.agree(&all, &[("one", "3")]);
    let texts = |name: &str| {
        files(&nodes.directory(name), ".setting").into_iter().map(|path| fs::read(path).unwrap())
    };
    // Each has it on its own disk, as the others do.
    let first: Vec<_> = texts("a").collect();
    assert!(first.len() == 2 && texts("b").eq(first.clone()) && texts("c").eq(first));
}

#[test]
fn g21_a_node_that_starts_again_has_what_it_acknowledged() {
    let nodes = Nodes::new();
    let node = nodes.node("a", &[]);
    let operator = nodes.at("a");
    let long = "long ".repeat(50_000);
    operator.put("one", "first");
    let version = operator.put("one", &long);
    operator.put("gone", "2");
    let removed = operator.remove("gone", Condition::Any).unwrap();
    node.stop();
    drop(operator);
    // What was being written when it ended was acknowledged to nobody.
    fs::write(nodes.directory("a").join("0123.setting.new"), "half of a te").unwrap();
    let node = nodes.node("a", &[]);
    let operator = nodes.at("a");
    let one = Setting { key: "one".into(), text: long.clone(), version };
    assert_eq!(operator.get("one"), Ok(one));
    nodes.agree(&["a"], &[("one", &long)]);
    assert!(files(&nodes.directory("a"), ".new").is_empty());
    assert_eq!(node.centre.counts().removed, 1);
    // Whatever was there before, what is put now is later.
    assert!(operator.put("gone", "again") > removed);
}

#[test]
fn g20_a_node_that_was_away_learns_what_was_put_and_removed_meanwhile() {
    let nodes = Nodes::new();
    let all = ["a", "b"];
    let first = nodes.node("a", &all);
    let second = nodes.node("b", &all);
    nodes.at("a").put("kept", "1");
    nodes.at("a").put("changed", "1");
    nodes.at("a").put("removed", "1");
    nodes.agree(&all, &[("changed", "1"), ("kept", "1"), ("removed", "1")]);
    second.stop();
    nodes.at("a").put("changed", "2");
    nodes.at("a").put("new", "2");
    nodes.at("a").remove("removed", Condition::Any).unwrap();
    let second = nodes.node("b", &all);
    let now = [("changed", "2"), ("kept", "1"), ("new", "2")];
    nodes.agree(&all, &now);
    // So does one that has lost its disk.
    second.stop();
    fs::remove_dir_all(nodes.directory("b")).unwrap();
    let second = nodes.node("b", &all);
    nodes.agree(&all, &now);
    for node in [first, second] {
        let counts = node.centre.counts();
        assert_eq!((counts.overwritten, counts.not_taken, counts.not_written), (0, 0, 0));
    }
}

#[test]
fn g20_of_two_puts_on_nodes_that_cannot_hear_each_other_the_later_counts_and_the_other_is_counted()
{
    let nodes = Nodes::new();
    let all = ["a", "b"];
    let [one, other] = all.map(|name| nodes.node(name, &[]));
    nodes.at("a").try_put("shop", "earlier", Condition::Absent).unwrap();
    let before = wall_clock_ms();
    eventually("time has passed", || wall_clock_ms() > before);
    nodes.at("b").try_put("shop", "later", Condition::Absent).unwrap();
    one.stop();
    other.stop();
    let [one, _other] = all.map(|name| nodes.node(name, &all));
    nodes.agree(&all, &[("shop", "later")]);
    assert_eq!(one.centre.counts().overwritten, 1);
}

#[test]
fn a_node_without_a_directory_takes_nothing_and_passes_on_what_others_keep() {
    let nodes = Nodes::new();
    let _first = nodes.node("a", &["b"]);
    let mut config = nodes.config("b", &["a", "c"]);
    config.directory = None;
    let _between = nodes.node_with("b", config);
    let _last = nodes.node("c", &["b"]);
    let between = nodes.at("b");
    let declined = between.try_put("shop", "1", Condition::Any).unwrap_err();
    assert_eq!(declined, Declined::NoDirectory);
    assert!(declined.to_string().contains("`CentreConfig::directory` (`--directory`)"));
    nodes.at("a").put("shop", "2");
    nodes.agree(&["a", "b", "c"], &[("shop", "2")]);
    let (_configured, taken) = nodes.follow(nodes.watch(&["b"], "shop"));
    assert_eq!(taken.recv_timeout(LONG).unwrap(), "2");
}

#[test]
fn g21_a_file_that_is_not_as_it_was_written_is_an_error_with_its_name() {
    let nodes = Nodes::new();
    let node = nodes.node("a", &[]);
    nodes.at("a").put("shop", "one = 1");
    let open = || Centre::open(nodes.config("a", &[]));
    let in_use = open().unwrap_err();
    assert!(matches!(in_use, BadDirectory::InUse { .. }), "{in_use}");
    node.stop();
    let path = files(&nodes.directory("a"), ".setting").pop().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("one = 1", "one = 2")).unwrap();
    let error = open().unwrap_err();
    assert!(matches!(&error, BadDirectory::Broken { path: at, .. } if *at == path), "{error}");
    assert!(error.to_string().contains("checksum"), "{error}");
    // A copy under another name would be another setting with its key.
    fs::write(&path, &text).unwrap();
    assert!(open().is_ok());
    fs::copy(&path, nodes.directory("a").join("copy.setting")).unwrap();
    assert!(open().unwrap_err().to_string().contains("its name should be"));
    fs::remove_file(nodes.directory("a").join("copy.setting")).unwrap();
    // What is no setting is left alone.
    fs::write(nodes.directory("a").join("README"), "settings").unwrap();
    assert_eq!(open().unwrap().counts().settings, 1);
    let mut config = nodes.config("a", &[]);
    config.bytes_max = 200;
    assert!(matches!(Centre::open(config), Err(BadDirectory::TooMuch { .. })));
    let mut config = nodes.config("a", &[]);
    config.directory = Some(nodes.directory("nobody").join("made"));
    let error = Centre::open(config).unwrap_err();
    assert!(matches!(error, BadDirectory::Io { .. }), "{error}");
}

#[test]
fn g21_what_cannot_be_written_is_not_acknowledged_and_what_others_say_is_written_later() {
    let nodes = Nodes::new();
    let all = ["a", "b"];
    let [_first, second] = all.map(|name| nodes.node(name, &all));
    nodes.at("a").put("shop", "1");
    nodes.agree(&all, &[("shop", "1")]);
    fs::remove_dir_all(nodes.directory("b")).unwrap();
    let refused = || nodes.at("b").try_put("shop", "2", Condition::Any).unwrap_err();
    eventually("it is refused", || matches!(refused(), Declined::NotWritten { .. }));
    assert_eq!(nodes.at("b").get("shop").unwrap().text, "1");
    nodes.at("a").put("shop", "3");
    nodes.agree(&all, &[("shop", "3")]);
    assert_eq!(second.centre.counts().not_written, 2);
    fs::create_dir(nodes.directory("b")).unwrap();
    eventually("it is written", || !files(&nodes.directory("b"), ".setting").is_empty());
}

#[test]
fn g21_a_file_that_cannot_be_written_keeps_no_other_from_it() {
    let nodes = Nodes::new();
    let all = ["a", "b"];
    let [_first, _second] = all.map(|name| nodes.node(name, &all));
    let keys: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let settings: Vec<_> = keys.iter().map(|key| (key.as_str(), "1")).collect();
    let settings = || {
        let mut settings = settings.clone();
        settings.sort_unstable();
        settings
    };
    nodes.at("a").put(&keys[0], "1");
    nodes.agree(&all, &[("0", "1")]);
    fs::remove_dir_all(nodes.directory("b")).unwrap();
    keys.iter().for_each(|key| _ = nodes.at("a").put(key, "1"));
    nodes.agree(&all, &settings());
    let written = |name: &str| files(&nodes.directory(name), ".setting");
    let mut names: Vec<_> =
        written("a").into_iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names.len(), keys.len());
    // Where most of them are to be written something else is in the way.
    let free = names.split_off(39);
    fs::create_dir(nodes.directory("b.made")).unwrap();
    for name in &names {
        fs::create_dir(nodes.directory("b.made").join(name)).unwrap();
    }
    fs::rename(nodes.directory("b.made"), nodes.directory("b")).unwrap();
    let path = nodes.directory("b").join(&free[0]);
    eventually("the one that can be is written", || path.is_file());
}

#[test]
fn the_longest_text_goes_everywhere() {
    let nodes = Nodes::new();
    let all = ["a", "b"];
    let _serving = all.map(|name| nodes.node(name, &all));
    let (key, text) = ("k".repeat(256), "x".repeat(256 * 1024));
    let version = nodes.at("a").put(&key, &text);
    nodes.agree(&all, &[(&key, &text)]);
    let setting = Setting { key: key.clone(), text: text.clone(), version };
    let conflict = Err(Declined::Conflict { there: Some(setting) });
    assert_eq!(nodes.at("b").try_put(&key, &text, Condition::Absent), conflict);
    let cache = nodes.0.path("cache");
    let (configured, taken) = nodes.follow(nodes.watch(&["b"], &key).cache(&cache));
    assert_eq!(taken.recv_timeout(LONG).unwrap(), text);
    eventually("it is cached", || cache.exists());
    drop(configured);
    let (_configured, taken) = nodes.follow(nodes.watch(&["nobody"], &key).cache(&cache));
    assert_eq!(taken.recv_timeout(LONG).unwrap(), text);
}

#[test]
fn what_may_not_be_is_refused() {
    let nodes = Nodes::new();
    let mut config = nodes.config("a", &[]);
    (config.keys_max, config.watches_max) = (2, 64);
    let _node = nodes.node_with("a", config);
    let operator = nodes.at("a");
    let put = |key: &str, text: &str| operator.try_put(key, text, Condition::Any);
    let long = "x".repeat(256 * 1024);
    assert!(put(&"k".repeat(256), &long).is_ok());
    assert_eq!(put("a", &format!("{long}x")), Err(Declined::TooLong { bytes_max: 256 * 1024 }));
    for key in ["", "two\nlines", &"k".repeat(257)] {
        assert_eq!(put(key, "1"), Err(Declined::BadKey));
    }
    assert!(put("b", "1").is_ok());
    assert_eq!(put("c", "1"), Err(Declined::Full { keys_max: 2, bytes_max: 64 << 20 }));
    assert!(put("b", "2").is_ok(), "what is there may be changed");

    let watch = |keys: Vec<WatchedKey>| answer(operator.0.watch(&keys).wait());
    let keys = |count: usize| (0..count).map(|key| watched(&key.to_string(), None)).collect();
    assert_eq!(watch(keys(0)).err(), Some(Declined::BadWatch));
    assert_eq!(watch(keys(65)).err(), Some(Declined::BadWatch));
    assert_eq!(watch(vec![watched("", None)]).err(), Some(Declined::BadKey));
    let all = watch(keys(64)).unwrap();
    assert_eq!(watch(keys(1)).err(), Some(Declined::Busy));
    drop(all);
    eventually("there is room again", || watch(keys(1)).is_ok());
}

#[test]
fn who_watches_is_told_what_there_is_and_then_the_latest() {
    let nodes = Nodes::new();
    let _node = nodes.node("a", &[]);
    let operator = nodes.at("a");
    let old = operator.put("old", "1");
    let known = operator.put("known", "1");
    let keys = vec![watched("old", None), watched("known", Some(known)), watched("new", None)];
    let mut news = operator.0.watch(&keys).wait().unwrap();
    let mut next = || news.next_wait().unwrap().unwrap().to_owned();
    let put = |key: &str, text: &str, version| {
        let setting = Setting { key: key.into(), text: text.into(), version };
        SettingNews::Put { setting }
    };
    assert_eq!(next(), put("old", "1", old));
    // Of what it knows it is told nothing.
    assert_eq!(next(), SettingNews::Unknown { key: "new".into() });
    operator.put("other", "1");
    let new = operator.put("new", "1");
    assert_eq!(next(), put("new", "1", new));
    let version = operator.remove("known", Condition::Any).unwrap();
    assert_eq!(next(), SettingNews::Removed { key: "known".into(), version });
    // However many there are, in the end it has the latest, and none is older than the one before.
    let mut last = old;
    (0..500).for_each(|number| last = operator.put("old", &number.to_string()));
    let mut heard = old;
    while heard < last {
        let SettingNews::Put { setting } = next() else { panic!("it was put") };
        assert!(setting.version > heard);
        heard = setting.version;
    }
}

#[test]
fn a_text_that_is_refused_leaves_the_former_in_force() {
    let nodes = Nodes::new();
    let _node = nodes.node("a", &[]);
    let operator = nodes.at("a");
    let first = operator.put("shop", "one");
    let (configured, taken) = nodes.follow(nodes.watch(&["a"], "shop"));
    assert_eq!(taken.recv_timeout(LONG).unwrap(), "one");
    assert!(configured.wait(LONG));
    for (refused, text) in ["bad", "panic"].into_iter().enumerate() {
        operator.put("shop", text);
        eventually("it is refused", || configured.refused() == 1 + refused as u64);
        assert_eq!(configured.in_force().unwrap().version, first);
    }
    // What was refused may have been put in force in part, so the same text is handed over again.
    operator.put("shop", "one");
    assert_eq!(taken.recv_timeout(LONG).unwrap(), "one");
    // Now it is nothing new, but its version is.
    let same = operator.put("shop", "one");
    eventually("its version is known", || configured.in_force().unwrap().version == same);
    operator.remove("shop", Condition::Any).unwrap();
    operator.put("shop", "two");
    assert_eq!(taken.recv_timeout(LONG).unwrap(), "two");
    eventually("it is in force", || (configured.taken(), configured.refused()) == (3, 2));
}

#[test]
fn who_follows_goes_to_another_node_when_its_own_is_gone() {
    let nodes = Nodes::new();
    let all = ["a", "b"];
    let mut serving: Vec<_> = all.iter().map(|name| nodes.node(name, &all)).collect();
    nodes.at("a").put("shop", "one");
    nodes.agree(&all, &[("shop", "one")]);
    let (configured, taken) = nodes.follow(nodes.watch(&all, "shop"));
    assert_eq!(taken.recv_timeout(LONG).unwrap(), "one");
    for (gone, text) in [(0, "two"), (1, "three")] {
        serving.remove(gone).stop();
        let left = if gone == 0 { "b" } else { "a" };
        nodes.at(left).put("shop", text);
        assert_eq!(taken.recv_timeout(LONG).unwrap(), text);
        serving.insert(gone, nodes.node(all[gone], &all));
        nodes.agree(&all, &[("shop", text)]);
    }
    // Without any what is in force stays.
    serving.into_iter().for_each(Serving::stop);
    let before = configured.in_force();
    let again = [nodes.node("a", &all), nodes.node("b", &all)];
    nodes.at("a").put("shop", "four");
    assert_eq!(taken.recv_timeout(LONG).unwrap(), "four");
    eventually("it is in force", || configured.in_force() != before);
    assert_eq!(configured.refused(), 0);
    drop(again);
}

#[test]
fn the_last_text_that_was_taken_is_there_at_the_start_without_any_node() {
    let nodes = Nodes::new();
    let cache = nodes.0.path("shop.setting");
    let watch = || nodes.watch(&["a"], "shop").cache(&cache).patience(Duration::from_millis(50));
    // There is none yet.
    let (configured, _taken) = nodes.follow(watch());
    assert!(!configured.wait(Duration::from_millis(200)) && configured.in_force().is_none());
    drop(configured);

    let node = nodes.node("a", &[]);
    let version = nodes.at("a").put("shop", "one");
    let (configured, taken) = nodes.follow(watch());
    assert_eq!(taken.recv_timeout(LONG).unwrap(), "one");
    nodes.at("a").put("shop", "bad");
    eventually("it is refused", || configured.refused() == 1);
    drop(configured);

    // The node has nothing but a text that is refused; the one before is in the cache.
    let (configured, taken) = nodes.follow(watch());
    assert_eq!(taken.recv_timeout(LONG).unwrap(), "one");
    assert_eq!(configured.refused(), 1);
    drop(configured);
    node.stop();

    let (configured, taken) = nodes.follow(watch());
    assert_eq!(taken.recv_timeout(LONG).unwrap(), "one");
    assert!(configured.wait(LONG));
    let in_force = configured.in_force().unwrap();
    assert_eq!((in_force.version, in_force.is_cached), (version, true));
    let node = nodes.node("a", &[]);
    nodes.at("a").put("shop", "two");
    assert_eq!(taken.recv_timeout(LONG).unwrap(), "two");
    eventually("it is not the cached one", || !configured.in_force().unwrap().is_cached);
    drop(configured);
    node.stop();

    // Nodes that have lost everything do not make programs lose it.
    fs::remove_dir_all(nodes.directory("a")).unwrap();
    let node = nodes.node("a", &[]);
    let (configured, taken) = nodes.follow(watch().patience(LONG));
    assert_eq!(taken.recv_timeout(LONG).unwrap(), "two");
    drop(configured);
    node.stop();

    // Nor is a cache taken that is not as it was written, or of another setting.
    let other = nodes.watch(&["a"], "other").cache(&cache).patience(Duration::from_millis(50));
    let (configured, _taken) = nodes.follow(other);
    assert!(!configured.wait(Duration::from_millis(200)));
    fs::write(&cache, "ringcall setting 1\nnonsense").unwrap();
    let (configured, _taken) = nodes.follow(watch());
    assert!(!configured.wait(Duration::from_millis(200)));
}

#[test]
fn a_node_that_is_behind_does_not_take_a_program_back() {
    let nodes = Nodes::new();
    let cache = nodes.0.path("shop.setting");
    // Nodes that do not know each other.
    let behind = nodes.node("a", &[]);
    nodes.at("a").put("shop", "one");
    behind.stop();
    let _ahead = nodes.node("b", &[]);
    nodes.at("b").put("shop", "two");
    let (configured, taken) = nodes.follow(nodes.watch(&["b"], "shop").cache(&cache));
    assert_eq!(taken.recv_timeout(LONG).unwrap(), "two");
    eventually("it is cached", || cache.exists());
    drop(configured);
    // Whether it answers first, or the program has begun without it.
    let watch = || nodes.watch(&["a"], "shop").cache(&cache);
    let behind = nodes.node("a", &[]);
    let (configured, taken) = nodes.follow(watch().patience(LONG));
    assert_eq!(taken.recv_timeout(LONG).unwrap(), "two");
    drop(configured);
    behind.stop();
    let (_configured, taken) = nodes.follow(watch().patience(Duration::from_millis(50)));
    assert_eq!(taken.recv_timeout(LONG).unwrap(), "two");
    let _behind = nodes.node("a", &[]);
    let operator = nodes.at("a");
    let watches = || operator.0.status().wait().unwrap().watches;
    eventually("it watches", || watches() == 1);
    operator.put("shop", "three");
    assert_eq!(taken.recv_timeout(LONG).unwrap(), "three");
}

#[test]
fn nor_does_one_that_has_heard_of_a_removal_and_not_of_what_was_put_since() {
    let nodes = Nodes::new();
    let cache = nodes.0.path("shop.setting");
    let _behind = nodes.node("a", &[]);
    nodes.at("a").put("shop", "one");
    let removed = nodes.at("a").remove("shop", Condition::Any).unwrap();
    let before = wall_clock_ms();
    eventually("time has passed", || wall_clock_ms() > before);
    let _ahead = nodes.node("b", &[]);
    let version = nodes.at("b").put("shop", "two");
    assert!(version > removed);
    let (configured, taken) = nodes.follow(nodes.watch(&["b"], "shop").cache(&cache));
    assert_eq!(taken.recv_timeout(LONG).unwrap(), "two");
    eventually("it is cached", || cache.exists());
    drop(configured);
    let (configured, taken) =
        nodes.follow(nodes.watch(&["a"], "shop").cache(&cache).patience(2 * LONG));
    assert_eq!(taken.recv_timeout(LONG).unwrap(), "two");
    assert!(configured.wait(LONG));
    assert_eq!(configured.in_force().map(|it| it.version), Some(version));
}

#[test]
fn what_cannot_be_watched_is_refused_at_once() {
    let apply = |_: &str| Ok::<(), String>(());
    let nowhere = ConfigWatch::new(Vec::<String>::new(), "shop").start(apply);
    assert!(nowhere.unwrap_err().to_string().contains("address"));
    let nothing = ConfigWatch::new(["127.0.0.1:1"], "").start(apply);
    assert!(nothing.unwrap_err().to_string().contains("is no key"));
}

/// Says all of this, and nothing more.
#[derive(Clone)]
struct Liar(Arc<[SettingSaid]>);

struct Lies(VecDeque<SettingSaid>);

impl Stream for Lies {
    type Item = SettingSaid;

    fn poll_next(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<SettingSaid>> {
        self.get_mut().0.pop_front().map_or(Poll::Pending, |said| Poll::Ready(Some(said)))
    }
}

impl ConfigurationReplication for Liar {
    async fn replicate(&self, _: &Context) -> Result<impl Stream<Item = SettingSaid>, Declined> {
        Ok(Lies(self.0.iter().cloned().collect()))
    }
}

#[test]
fn what_another_node_says_is_checked_before_it_is_kept() {
    let nodes = Nodes::new();
    let now = wall_clock_ms();
    let said = |key: &str, text: String, time: u64| {
        let version = Stamp { time, node: 1 };
        let record = SettingRecord { key: key.to_owned(), text: Some(text), version, over: None };
        SettingSaid::Record { record }
    };
    let day = 24 * 60 * 60 * 1000;
    let said = [
        SettingSaid::Node { id: 1 },
        SettingSaid::Node { id: 2 },
        said("", "1".into(), now),
        said("two\nlines", "1".into(), now),
        said(&"k".repeat(257), "1".into(), now),
        said("long", "x".repeat(256 * 1024 + 1), now),
        said("tomorrow", "1".into(), now + 2 * day),
        said("never", "1".into(), u64::MAX),
        said("good", "1".into(), now),
        SettingSaid::UpToDate,
    ];
    let liar = Server::bind(nodes.0.address("liar").as_str());
    let _liar = liar.service(Liar(said.into()).into_configuration_replication()).start().unwrap();
    let node = nodes.node("a", &["liar"]);
    nodes.agree(&["a"], &[("good", "1")]);
    assert_eq!(node.centre.counts().not_taken, 6);
    nodes.at("a").put("good", "2");
    nodes.agree(&["a"], &[("good", "2")]);
    let status = nodes.at("a").0.status().wait().unwrap().to_owned();
    assert_eq!(status, node.centre.counts());
}

#[test]
fn g21_a_program_that_is_killed_has_what_it_acknowledged() {
    let nodes = Nodes::new();
    let start = || -> Child {
        let directory = nodes.directory("a");
        let program = Command::new(env!("CARGO_BIN_EXE_ringcall-registry"))
            .args(["--listen", &nodes.0.address("a"), "--directory"])
            .arg(directory)
            .env("RUST_LOG", "off")
            .spawn();
        program.unwrap()
    };
    let connect = || ConfigurationClient::<Client>::connect(nodes.0.address("a").as_str()).wait();
    let mut last = 0u64;
    for _ in 0..4 {
        let mut program = start();
        eventually("it listens", || connect().is_ok());
        let operator = nodes.at("a");
        if last > 0 {
            let there: u64 = operator.get("number").unwrap().text.parse().unwrap();
            assert!(there >= last, "{last} was acknowledged, there is {there}");
        }
        // In the middle of what it does, and without a word.
        std::thread::scope(|scope| {
            let (acknowledge, acknowledged) = channel();
            scope.spawn(move || {
                let put = |number: u64| Put {
                    key: "number".to_owned(),
                    text: number.to_string(),
                    condition: Condition::Any,
                };
                let put = |number: &u64| operator.0.put(&put(*number)).wait().is_ok();
                let all = (last + 1..).take_while(put);
                all.for_each(|number| acknowledge.send(number).unwrap_or_default());
            });
            (0..25).for_each(|_| last = acknowledged.recv_timeout(LONG).unwrap());
            program.kill().unwrap();
            acknowledged.iter().for_each(|number| last = number);
        });
        program.wait().unwrap();
        let _ = fs::remove_file(nodes.0.path("a"));
    }
}

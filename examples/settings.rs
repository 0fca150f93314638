//! Settings of a client, its rules and the limits of its servers are in a centre of three nodes. Operators put them there, by
//! turns and at the same time; those who are set up hear of it at once, and start without the centre if they must.
//!
//! ```text
//! $ cargo run --example settings
//! at first                      version 1 100 %, version 2   0 %;   0 % refused
//! a fifth to the new version    version 1  80 %, version 2  20 %;   0 % refused
//! who has read the first one    is refused: version 1796074447952/5542473033844504 is there, with 232 bytes
//! a mistake                     is refused: the setting health.window must be 1 ms to a day
//!                               version 1  82 %, version 2  18 %;   0 % refused
//! all to the new version        version 1   0 %, version 2 100 %;   0 % refused
//! all nodes start again         "shop" has 97 bytes
//! ten calls a second            version 1   0 %, version 2 100 %;  90 % refused
//! no node is left               version 1   0 %, version 2 100 %;  98 % refused
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use ringcall::cluster::discovery::{Instance, Listing};
use ringcall::cluster::route::Rules;
use ringcall::cluster::{Balanced, Clients, Settings};
use ringcall::limits::{Limits, ServerLimits};
use ringcall::{BlockOn, CallError, Client, RunningServer, Server, ShardConfig};
use ringcall_registry::{
    Centre, CentreConfig, Condition, ConfigWatch, Configuration as _, ConfigurationClient,
    ConfigurationReplication as _, Configured, Declined, Put, Stamp, Tending,
};

#[ringcall::service(name = "example.Shop")]
trait Shop {
    /// Which version of the shop it is.
    #[method(idempotent)]
    async fn version(&self) -> u32;
}

struct Version(u32);

impl Shop for Version {
    async fn version(&self) -> u32 {
        self.0
    }
}

type Error = Box<dyn std::error::Error>;

/// What a text says: how its parts are called is up to the program.
#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Texts {
    client: Settings,
    routing: Rules,
    server: Limits,
}

const AT_FIRST: &str = r#"
[client]
balancing = "smooth_round_robin"

[routing]
version = 1
rules = [{ name = "the old version", then = { route = [{ version = "1" }] } }]
"#;

const A_FIFTH: &str = r#"
[client]
balancing = "smooth_round_robin"

[routing]
version = 2

[[routing.rules]]
name = "new"
[routing.rules.then]
split.routes = [
    { weight = 80, to = [{ version = "1" }] },
    { weight = 20, to = [{ version = "2" }] },
]
"#;

/// Nothing of it is put in force, its rules neither.
const A_MISTAKE: &str = r#"
routing.version = 3
client.health.window = "0s"
"#;

const ALL_NEW: &str = r#"
[routing]
version = 4
rules = [{ name = "new", then = { route = [{ version = "2" }, "any"] } }]
"#;

const TEN: &str = r#"
[client]
method.retry.attempts = 1

[routing]
version = 5
rules = [{ name = "new", then = { route = [{ version = "2" }, "any"] } }]

[[server.rates]]
calls = 10
burst = 10
method = "example.Shop/version"
"#;

/// A node, with a thread that keeps it up to date.
struct Running {
    server: RunningServer,
    _tending: Tending,
}

/// Three nodes, at sockets in a folder, with a directory each.
struct Nodes {
    folder: PathBuf,
    addresses: Vec<String>,
    running: Vec<Running>,
}

impl Nodes {
    fn new(folder: &Path) -> Nodes {
        let address = |name: &str| format!("unix:{}", folder.join(name).display());
        let addresses = ["n1", "n2", "n3"].map(address).to_vec();
        Nodes { folder: folder.to_owned(), addresses, running: Vec::new() }
    }

    fn start(&mut self) -> Result<(), Error> {
        for (number, address) in self.addresses.iter().enumerate() {
            let mut config = CentreConfig::default();
            config.peers = self.addresses.clone();
            config.directory = Some(self.folder.join(format!("settings-{number}")));
            let centre = Centre::open(config)?;
            let tending = centre.start(ShardConfig::default())?;
            let server = Server::bind(address.as_str())
                .service(centre.clone().into_configuration())
                .service(centre.into_configuration_replication())
                .start()?;
            self.running.push(Running { server, _tending: tending });
        }
        Ok(())
    }

    fn stop(&mut self) {
        for Running { server, .. } in self.running.drain(..) {
            server.stop();
        }
    }

    /// Somebody who changes settings, at one of the nodes.
    fn operator(&self, number: usize) -> Result<Operator, Error> {
        Ok(Operator(ConfigurationClient::connect(self.addresses[number].as_str()).wait()?))
    }
}

struct Operator(ConfigurationClient<Client>);

impl Operator {
    fn put(&self, text: &str, condition: Condition) -> Result<Stamp, Error> {
        let put = Put { key: "shop".into(), text: text.into(), condition };
        within(|| match self.0.put(&put).wait() {
            // It has not heard the others yet.
            Err(CallError::App(Declined::Starting)) => None,
            Err(CallError::App(declined)) => Some(Err(declined.into())),
            put => Some(put.map(|version| version.to_owned()).map_err(Error::from)),
        })?
    }
}

/// Waits until there is something.
fn within<T>(mut something: impl FnMut() -> Option<T>) -> Result<T, Error> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(30) {
        if let Some(something) = something() {
            return Ok(something);
        }
        thread::sleep(Duration::from_millis(2));
    }
    Err("it takes too long".into())
}

/// A channel to both servers, which is set up by the centre.
struct Service {
    shop: ShopClient<Balanced<Clients>>,
    configured: Configured,
}

impl Service {
    fn start(
        servers: &[RunningServer],
        nodes: &Nodes,
        refused: impl Fn(&str) + Send + 'static,
    ) -> Result<Service, Error> {
        let balanced = Balanced::new(Clients::new()?, Settings::new())?;
        let instances = servers.iter().zip(1u32..).map(|(server, version)| {
            let address = server.address().clone();
            let mut instance = Instance::new("shop", format!("s{version}"), address);
            instance.version = version.to_string();
            instance
        });
        balanced.apply(&Listing::of(1, instances));
        balanced.block_on(balanced.ready().within(Duration::from_secs(10)))?;
        let limits: Vec<_> = servers.iter().map(|server| server.limits().clone()).collect();
        let shop = ShopClient::new(balanced.clone());
        let apply = move |text: &str| {
            let applied = apply(text, &balanced, &limits);
            applied.inspect_err(|error| refused(&error.to_string()))
        };
        let cache = nodes.folder.join("shop.setting");
        let watch = ConfigWatch::new(&nodes.addresses, "shop").cache(cache);
        let configured = watch.patience(Duration::from_millis(200)).start(apply)?;
        Ok(Service { shop, configured })
    }

    fn wait(&self, version: Stamp) -> Result<(), Error> {
        within(|| self.configured.in_force().filter(|it| it.version == version)).map(drop)
    }

    /// Calls a hundred times: how many were answered by which version, and were not.
    fn call(&self) -> Calls {
        let mut calls = Calls { old: 0, new: 0, refused: 0 };
        for _ in 0..100 {
            match self.shop.version().wait().map(|version| version.to_native()) {
                Ok(1) => calls.old += 1,
                Ok(_) => calls.new += 1,
                Err(_) => calls.refused += 1,
            }
        }
        calls
    }
}

/// Puts a text in force, all of it, or nothing.
fn apply(text: &str, balanced: &Balanced<Clients>, limits: &[ServerLimits]) -> Result<(), Error> {
    // Here it turns out whether it makes sense, and nothing has been changed.
    let Texts { client, routing, server } = toml::from_str(text)?;
    balanced.route(routing)?;
    balanced.configure(client)?;
    limits.iter().try_for_each(|limits| limits.replace(server.clone()))?;
    Ok(())
}

#[derive(Clone, Copy)]
struct Calls {
    old: u32,
    new: u32,
    refused: u32,
}

impl Calls {
    fn print(self, step: &str) -> Calls {
        let Calls { old, new, refused } = self;
        let percent = |calls: u32| (calls * 100) / (old + new).max(1);
        println!(
            "{step:<29} version 1 {:>3} %, version 2 {:>3} %; {refused:>3} % refused",
            percent(old),
            percent(new)
        );
        self
    }
}

/// Gone when the program ends.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn main() -> Result<(), Error> {
    let folder = Folder(env::temp_dir().join(format!("ringcall-settings-{}", process::id())));
    fs::create_dir_all(&folder.0)?;
    let mut nodes = Nodes::new(&folder.0);
    nodes.start()?;
    let serve = |version| Server::bind("127.0.0.1:0").service(Version(version).into_shop()).start();
    let servers = [serve(1)?, serve(2)?];
    let (tell, mistakes) = std::sync::mpsc::channel();
    // The last line says what is wrong, those before it where.
    let refused = move |what: &str| drop(tell.send(what.lines().last().map(str::to_owned)));
    let service = Service::start(&servers, &nodes, refused)?;

    let first = nodes.operator(0)?.put(AT_FIRST, Condition::Absent)?;
    service.wait(first)?;
    let calls = service.call().print("at first");
    assert_eq!((calls.old, calls.new), (100, 0));

    let fifth = nodes.operator(1)?.put(A_FIFTH, Condition::At { version: first });
    // Another node may not have heard of the first one yet.
    let fifth = fifth.or_else(|_| nodes.operator(0)?.put(A_FIFTH, Condition::Any))?;
    service.wait(fifth)?;
    let calls = service.call().print("a fifth to the new version");
    assert!((1..50).contains(&calls.new));

    // Somebody else has read the first one too, and would undo the fifth without having seen it.
    let conflict = nodes.operator(1)?.put(AT_FIRST, Condition::At { version: first });
    let conflict = conflict.err().ok_or("it should not be taken")?;
    println!("who has read the first one    is refused: {conflict}");

    nodes.operator(0)?.put(A_MISTAKE, Condition::Any)?;
    let mistake = mistakes.recv_timeout(Duration::from_secs(30))?;
    println!("a mistake                     is refused: {}", mistake.unwrap_or_default());
    let calls = service.call().print("");
    assert!((1..50).contains(&calls.new));
    within(|| (service.configured.refused() == 1).then_some(()))?;

    service.wait(nodes.operator(2)?.put(ALL_NEW, Condition::Any)?)?;
    assert_eq!(service.call().print("all to the new version").new, 100);

    nodes.stop();
    nodes.start()?;
    let kept = nodes.operator(2)?.0.get(&"shop".to_owned()).wait()?.to_owned();
    println!("all nodes start again         {:?} has {} bytes", kept.key, kept.text.len());
    assert_eq!(kept.text, ALL_NEW);

    service.wait(nodes.operator(0)?.put(TEN, Condition::Any)?)?;
    assert!(service.call().print("ten calls a second").refused > 0);

    nodes.stop();
    let service = Service::start(&servers, &nodes, |_| {})?;
    assert!(service.configured.wait(Duration::from_secs(30)), "from the cache");
    // Those that are left of the ten.
    let calls = service.call().print("no node is left");
    assert_eq!(calls.old, 0);
    Ok(())
}

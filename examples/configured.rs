//! Settings of a client, its rules and the limits of its servers are in a file. Two servers, of an old and a new version,
//! are called all the time, while the file is changed by somebody, and what it says is put in force.
//!
//! ```text
//! $ cargo run --example configured
//! at first                      6997 calls:   0 % refused; version 1 100 %, version 2   0 %
//! a fifth to the new version    7615 calls:   0 % refused; version 1  80 %, version 2  20 %
//!     TOML parse error at line 3, column 2
//!       |
//!     3 | [client.health]
//!       |  ^^^^^^
//!     the setting health.window must be 1 ms to a day
//! a mistake                    10205 calls:   0 % refused; version 1  80 %, version 2  20 %
//! all to the new version       15404 calls:   0 % refused; version 1   0 %, version 2 100 %
//! a hundred a second            9511 calls: 100 % refused; version 1   0 %, version 2 100 %
//! ```

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use std::{env, fs, io, thread};

use ringcall::cluster::discovery::{Instance, Listing};
use ringcall::cluster::route::Rules;
use ringcall::cluster::{Balanced, Clients, Settings};
use ringcall::limits::{Limits, ServerLimits};
use ringcall::{BlockOn, RunningServer, Server};

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

/// What is in the file: how its parts are called is up to the program.
#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    client: Settings,
    routing: Rules,
    server: Limits,
}

const AT_FIRST: &str = r#"
[client]
balancing = "smooth_round_robin"
method.retry = { attempts = 2, backoff = "1ms" }

[routing]
version = 1

[[routing.rules]]
name = "the old version"
then = { route = [{ version = "1" }] }

[server]
concurrency = 512
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
const A_MISTAKE: &str = r#"[routing]
version = 3
[client.health]
window = "0s"
"#;

const ALL_NEW: &str = r#"
[client]
limit = { in_flight = 100 }

[routing]
version = 3

[[routing.rules]]
name = "new"
then = { route = [{ version = "2" }, "any"] }
"#;

const A_HUNDRED: &str = r#"
[client]
method.retry.attempts = 1

[routing]
version = 4

[[routing.rules]]
name = "new"
then = { route = [{ version = "2" }, "any"] }

[[server.rates]]
calls = 100
burst = 10
method = "example.Shop/version"
"#;

/// All that the file says something of.
struct Service {
    balanced: Balanced<Clients>,
    limits: Vec<ServerLimits>,
    /// What was read last.
    text: Mutex<String>,
}

impl Service {
    /// Looks whether there is something new in the file; what cannot be put in force is told, and what was goes on.
    fn look(&self, path: &Path) {
        if let Err(error) = self.read(path) {
            error.to_string().trim_end().lines().for_each(|line| println!("    {line}"));
        }
        thread::sleep(Duration::from_millis(20));
    }

    fn read(&self, path: &Path) -> Result<(), Error> {
        let text = fs::read_to_string(path)?;
        let mut last = self.text.lock().unwrap();
        if *last == text {
            return Ok(());
        }
        // A mistake is told once.
        last.clone_from(&text);
        // Here it turns out whether it makes sense, and nothing has been changed.
        let File { client, routing, server } = toml::from_str(&text)?;
        self.balanced.route(routing)?;
        self.balanced.configure(client)?;
        self.limits.iter().try_for_each(|limits| limits.replace(server.clone()))?;
        Ok(())
    }
}

/// Whoever reads sees the old file or the new one, whole.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, path)
}

fn serve(version: u32) -> Result<(RunningServer, Instance), Error> {
    let server = Server::bind("127.0.0.1:0").service(Version(version).into_shop()).start()?;
    let mut instance = Instance::new("shop", format!("s{version}"), server.address().clone());
    instance.version = version.to_string();
    Ok((server, instance))
}

/// What became of the calls that were made.
#[derive(Default)]
struct Calls {
    old: AtomicU64,
    new: AtomicU64,
    refused: AtomicU64,
}

impl Calls {
    fn make(&self, shop: &ShopClient<Balanced<Clients>>) {
        let end = match shop.version().wait().map(|version| version.to_native()) {
            Ok(1) => &self.old,
            Ok(_) => &self.new,
            Err(_) => &self.refused,
        };
        end.fetch_add(1, Ordering::Relaxed);
    }

    /// Those since the last time.
    fn take(&self) -> [u64; 3] {
        [&self.old, &self.new, &self.refused].map(|calls| calls.swap(0, Ordering::Relaxed))
    }
}

/// In how many of a hundred.
fn percent(calls: u64, all: u64) -> u64 {
    (calls * 100 + all / 2) / all.max(1)
}

/// Where the file is: gone when the program ends.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn main() -> Result<(), Error> {
    let folder =
        Folder(env::temp_dir().join(format!("ringcall-configured-{}", std::process::id())));
    fs::create_dir_all(&folder.0)?;
    let path = folder.0.join("shop.toml");

    let (servers, instances): (Vec<_>, Vec<_>) = [serve(1)?, serve(2)?].into_iter().unzip();
    let balanced = Balanced::new(Clients::new()?, Settings::new())?;
    balanced.apply(&Listing::of(1, instances));
    balanced.block_on(balanced.ready().within(Duration::from_secs(10)))?;
    let limits = servers.iter().map(|server| server.limits().clone()).collect();
    let shop = ShopClient::new(balanced.clone());
    let service = Service { balanced, limits, text: Mutex::default() };
    write(&path, AT_FIRST)?;
    service.read(&path)?;

    let (calls, stop) = (Calls::default(), AtomicBool::new(false));
    let goes_on = || !stop.load(Ordering::Relaxed);
    let steps = thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while goes_on() {
                    calls.make(&shop)
                }
            });
        }
        scope.spawn(|| {
            while goes_on() {
                service.look(&path)
            }
        });
        let steps = take_steps(&path, &calls);
        stop.store(true, Ordering::Relaxed);
        steps
    })?;

    let [first, fifth, mistake, new, most] = steps[..] else {
        return Err("a step is missing".into());
    };
    let of_new = |[old, new, _]: [u64; 3]| percent(new, old + new);
    assert_eq!((of_new(first), of_new(new)), (0, 100));
    assert!((10..30).contains(&of_new(fifth)) && (10..30).contains(&of_new(mistake)));
    assert!(most[2] > 0, "{most:?}");
    Ok(())
}

/// Somebody changes the file. What becomes of calls when it has been heard of?
fn take_steps(path: &Path, calls: &Calls) -> Result<Vec<[u64; 3]>, Error> {
    let mut steps = Vec::new();
    for (step, text) in [
        ("at first", AT_FIRST),
        ("a fifth to the new version", A_FIFTH),
        ("a mistake", A_MISTAKE),
        ("all to the new version", ALL_NEW),
        ("a hundred a second", A_HUNDRED),
    ] {
        write(path, text)?;
        thread::sleep(Duration::from_millis(200));
        calls.take();
        thread::sleep(Duration::from_millis(300));
        let taken @ [old, new, refused] = calls.take();
        let (made, all) = (old + new, old + new + refused);
        println!(
            "{step:<27} {all:>6} calls: {:>3} % refused; version 1 {:>3} %, version 2 {:>3} %",
            percent(refused, all),
            percent(old, made),
            percent(new, made)
        );
        steps.push(taken);
    }
    Ok(steps)
}

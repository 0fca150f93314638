//! Five servers, processes of their own, and clients that call them through balanced channels, while servers are
//! killed, stopped, restarted and added. A file says where they are.
//!
//! ```text
//! $ cargo run --release --example cluster -- 1
//! five servers             2385 calls: s1 19 % s2 20 % s3 19 % s4 21 % s5 21 %; 0 failed, 0 may have run
//! s2 is killed             2342 calls: s1 24 % s3 28 % s4 26 % s5 22 %; 0 failed, 0 may have run
//! s2 is back               2239 calls: s1 26 % s2 18 % s3 18 % s4 21 % s5 15 %; 0 failed, 0 may have run
//! s3 is stopped             949 calls: s1 20 % s2 31 % s4 27 % s5 22 %; 0 failed, 4 may have run
//! s3 goes on               2281 calls: s1 19 % s2 31 % s3 0 % s4 22 % s5 28 %; 0 failed, 1 may have run
//! s6 is added              2146 calls: s1 14 % s2 40 % s4 18 % s5 25 % s6 3 %; 0 failed, 0 may have run
//! all restarted (2436 ms)   7737 calls: s1 18 % s2 16 % s3 14 % s4 21 % s5 15 % s6 15 %; 0 failed, 0 may have run
//! …
//! ```
//!
//! The number is how many seconds each step takes. Half of the calls must not run twice: when a server dies in the
//! middle of one, nobody knows whether it ran, and it is not made again. Everything else must succeed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use ringcall::cluster::discovery::{FileSource, Instance, Wanted, write_list};
use ringcall::cluster::fleet::{HostReport, Readiness};
use ringcall::cluster::{Balanced, Clients, Settings, Watch};
use ringcall::{Address, CallError, CallOptions, Context, FailureClass, Server, method_id};
use rustix::process::{Pid, Signal, kill_process};

#[ringcall::service(name = "example.Shop")]
trait Shop {
    /// Must not be done twice. Says who did it.
    async fn order(&self, cx: &Context, item: u64) -> String;
    #[method(idempotent)]
    async fn price(&self, cx: &Context, item: u64) -> String;
}

struct Counter(String);

impl Shop for Counter {
    async fn order(&self, cx: &Context, item: u64) -> String {
        cx.sleep(Duration::from_micros(500 + item % 1000)).await;
        self.0.clone()
    }

    async fn price(&self, cx: &Context, item: u64) -> String {
        cx.sleep(Duration::from_micros(item % 500)).await;
        self.0.clone()
    }
}

/// How long it takes until everybody has heard of a new list, and some more.
const HEARD: Duration = Duration::from_millis(400);

type Error = Box<dyn std::error::Error>;

/// What a server process does: says where it listens, and serves until it is told to stop.
fn serve(name: &str) -> Result<(), Error> {
    let server =
        Server::bind("127.0.0.1:0").service(Counter(name.to_owned()).into_shop()).start()?;
    println!("{}", server.address());
    io::stdout().flush()?;
    // Whoever closes our input wants us to stop.
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    server.drain();
    Ok(())
}

/// A server process.
struct Process {
    child: Child,
    address: Address,
}

impl Process {
    fn start(name: &str) -> Result<Process, Error> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["serve", name]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut address = String::new();
        let output = child.stdout.take().ok_or("it has no output")?;
        BufReader::new(output).read_line(&mut address)?;
        Ok(Process { child, address: address.trim().parse()? })
    }

    fn signal(&self, signal: Signal) -> Result<(), Error> {
        let pid = Pid::from_raw(self.child.id() as i32).ok_or("it has no number")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Ends it in order.
    fn drain(mut self) -> Result<(), Error> {
        drop(self.child.stdin.take());
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// The servers, and the file that says where they are.
struct Cluster {
    file: PathBuf,
    servers: BTreeMap<String, Process>,
}

impl Cluster {
    fn start(&mut self, name: &str) -> Result<(), Error> {
        self.servers.insert(name.to_owned(), Process::start(name)?);
        self.publish()
    }

    fn publish(&self) -> Result<(), Error> {
        let instance = |(name, server): (&String, &Process)| {
            Instance::new("shop", name.clone(), server.address.clone())
        };
        let list: Vec<Instance> = self.servers.iter().map(instance).collect();
        Ok(write_list(&self.file, &list)?)
    }

    fn get(&self, name: &str) -> Result<&Process, Error> {
        Ok(self.servers.get(name).ok_or("no such server")?)
    }

    fn take(&mut self, name: &str) -> Result<Process, Error> {
        Ok(self.servers.remove(name).ok_or("no such server")?)
    }
}

/// What became of the calls of a step.
#[derive(Default)]
struct Tally {
    by: BTreeMap<String, u64>,
    failed: u64,
    unknown: u64,
    example: Option<String>,
}

impl Tally {
    fn count(&mut self, answer: Result<String, CallError>) {
        match answer {
            Ok(name) => *self.by.entry(name).or_default() += 1,
            Err(error) => {
                let class = error.failure().map(|failure| failure.class);
                if class == Some(FailureClass::Unknown) {
                    self.unknown += 1;
                } else {
                    self.failed += 1;
                    self.example.get_or_insert(error.to_string());
                }
            }
        }
    }

    fn say(&self, step: &str) {
        let all: u64 = self.by.values().sum();
        print!("{step:<22} {all:>6} calls:");
        for (name, count) in &self.by {
            print!(" {name} {} %", (count * 100 + all / 2) / all.max(1));
        }
        println!("; {} failed, {} may have run", self.failed, self.unknown);
        self.example.iter().for_each(|error| println!("    {error}"));
    }
}

/// Calls until it is told to stop.
fn call(shop: &ShopClient<Balanced<Clients>>, tally: &Mutex<Tally>, stop: &AtomicBool) {
    for item in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let answer = match item % 2 {
            0 => shop.order(&item).wait().map(|name| name.to_string()),
            _ => shop.price(&item).wait().map(|name| name.to_string()),
        };
        if let Ok(mut tally) = tally.lock() {
            tally.count(answer);
        }
    }
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = env::args().collect();
    if let [_, what, name] = &arguments[..]
        && what == "serve"
    {
        return serve(name);
    }
    let seconds: f64 = arguments.get(1).map_or(Ok(2.0), |text| text.parse())?;
    let folder = env::temp_dir().join(format!("ringcall-cluster-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let done = run(&folder, Duration::from_secs_f64(seconds));
    fs::remove_dir_all(&folder)?;
    done
}

fn run(folder: &Path, step: Duration) -> Result<(), Error> {
    let mut cluster = Cluster { file: folder.join("instances"), servers: BTreeMap::new() };
    for name in ["s1", "s2", "s3", "s4", "s5"] {
        cluster.start(name)?;
    }
    let mut settings = Settings::new();
    settings.warm_up = step;
    let balanced = Balanced::new(Clients::new()?, settings, u64::from(std::process::id()))?;
    let source = FileSource::new(&cluster.file);
    let _watching = Watch::new(Wanted::service("shop")).start(source, balanced.clone())?;
    let is_ready = |host: &HostReport| host.readiness == Readiness::Ready;
    while balanced.explain(0).hosts.iter().filter(|host| is_ready(host)).count() < 5 {
        thread::sleep(Duration::from_millis(10));
    }

    let (tally, stop) = (Mutex::new(Tally::default()), AtomicBool::new(false));
    let failed = thread::scope(|scope| {
        for _ in 0..3 {
            // A call to a server that is stopped is given up soon.
            let options = CallOptions::new().deadline(Duration::from_millis(300));
            let shop = ShopClient::new(balanced.clone()).with_options(options);
            let (tally, stop) = (&tally, &stop);
            scope.spawn(move || call(&shop, tally, stop));
        }
        let steps = steps(&mut cluster, &tally, step);
        stop.store(true, Ordering::Relaxed);
        steps
    })?;
    println!(
        "\nhow a call would be decided now:\n{}",
        balanced.explain(method_id("example.Shop/order"))
    );
    if failed > 0 {
        return Err(format!("{failed} calls failed that need not have").into());
    }
    Ok(())
}

/// What happens to the servers. How many calls failed of which it is known that they did not run.
fn steps(cluster: &mut Cluster, tally: &Mutex<Tally>, step: Duration) -> Result<u64, Error> {
    let mut failed = 0;
    let mut pass = |what: &str| {
        thread::sleep(step);
        let tally = tally.lock().map(|mut tally| std::mem::take(&mut *tally));
        if let Ok(tally) = tally {
            tally.say(what);
            failed += tally.failed;
        }
    };
    pass("five servers");
    // Without a word to anybody; the list still has it.
    cluster.get("s2")?.signal(Signal::KILL)?;
    pass("s2 is killed");
    drop(cluster.take("s2")?);
    cluster.start("s2")?;
    pass("s2 is back");
    cluster.get("s3")?.signal(Signal::STOP)?;
    pass("s3 is stopped");
    cluster.get("s3")?.signal(Signal::CONT)?;
    pass("s3 goes on");
    cluster.start("s6")?;
    pass("s6 is added");
    let began = Instant::now();
    for name in ["s1", "s2", "s3", "s4", "s5", "s6"] {
        let old = cluster.take(name)?;
        cluster.start(name)?;
        // Callers hear of a list within a quarter of a second, and then connect.
        thread::sleep(HEARD);
        old.drain()?;
    }
    pass(&format!("all restarted ({} ms)", began.elapsed().as_millis()));
    let gone = cluster.take("s6")?;
    cluster.publish()?;
    thread::sleep(HEARD);
    gone.drain()?;
    pass("s6 is removed");
    Ok(failed)
}

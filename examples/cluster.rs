//! Five servers and three clients, each a process of its own. The clients call through balanced channels, while servers
//! are killed, stopped, restarted, added and removed. A file says where they are.
//!
//! ```text
//! $ cargo run --release --example cluster -- 1
//! five servers             2010 calls: s1 16 % s2 16 % s3 22 % s4 20 % s5 26 %; 0 failed, 0 may have run
//! s2 is killed             1880 calls: s1 23 % s2 0 % s3 9 % s4 32 % s5 36 %; 0 failed, 0 may have run
//! s2 is back               1893 calls: s1 20 % s2 33 % s3 8 % s4 18 % s5 21 %; 0 failed, 0 may have run
//! s3 is stopped             574 calls: s1 25 % s2 32 % s4 25 % s5 18 %; 0 failed, 6 may have run
//! s3 goes on               1883 calls: s1 19 % s2 35 % s3 1 % s4 25 % s5 19 %; 0 failed, 0 may have run
//! s6 is added              2004 calls: s1 25 % s2 17 % s3 1 % s4 25 % s5 28 % s6 4 %; 0 failed, 0 may have run
//! all restarted (2682 ms)   6700 calls: s1 15 % s2 15 % s3 11 % s4 26 % s5 17 % s6 16 %; 0 failed, 0 may have run
//! s6 is removed            2678 calls: s1 12 % s2 11 % s3 18 % s4 20 % s5 36 % s6 2 %; 0 failed, 0 may have run
//! …
//! ```
//!
//! The number is how many seconds each step takes. Half of the calls must not run twice: when a server dies in the
//! middle of one, nobody knows whether it ran, and it is not made again. Everything else must succeed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use ringcall::cluster::discovery::{FileSource, Instance, Wanted, write_list};
use ringcall::cluster::fleet::{HostReport, Readiness};
use ringcall::cluster::{Balanced, Clients, Settings, Watch};
use ringcall::{Address, CallError, CallOptions, Context, FailureClass, Server};
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

/// A process of this program, which does what it is told until its input is closed.
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(role: &[&OsStr]) -> Result<Process, Error> {
        let mut command = Command::new(env::current_exe()?);
        command.args(role).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let output = child.stdout.take().ok_or("it has no output")?;
        Ok(Process { input: child.stdin.take(), output: BufReader::new(output), child })
    }

    /// What it says next.
    fn line(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        match self.output.read_line(&mut line)? {
            0 => Err("a process has ended".into()),
            _ => Ok(line.trim_end_matches('\n').to_owned()),
        }
    }

    /// What it says when it is asked.
    fn ask(&mut self) -> Result<String, Error> {
        self.input.as_mut().ok_or("it was told to stop")?.write_all(b"\n")?;
        self.line()
    }

    fn signal(&self, signal: Signal) -> Result<(), Error> {
        let pid = Pid::from_raw(self.child.id() as i32).ok_or("it has no number")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Ends it in order. What it says at last.
    fn end(mut self) -> Result<String, Error> {
        drop(self.input.take());
        let mut last = String::new();
        self.output.read_to_string(&mut last)?;
        self.child.wait()?;
        Ok(last)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

struct ServerProcess {
    process: Process,
    address: Address,
}

impl ServerProcess {
    fn start(name: &str) -> Result<ServerProcess, Error> {
        let mut process = Process::start(&["serve".as_ref(), name.as_ref()])?;
        let address = process.line()?.parse()?;
        Ok(ServerProcess { process, address })
    }
}

/// The servers, and the file that says where they are.
struct Cluster {
    file: PathBuf,
    servers: BTreeMap<String, ServerProcess>,
}

impl Cluster {
    fn start(&mut self, name: &str) -> Result<(), Error> {
        self.servers.insert(name.to_owned(), ServerProcess::start(name)?);
        self.publish()
    }

    fn publish(&self) -> Result<(), Error> {
        let instance = |(name, server): (&String, &ServerProcess)| {
            Instance::new("shop", name.clone(), server.address.clone())
        };
        let list: Vec<Instance> = self.servers.iter().map(instance).collect();
        Ok(write_list(&self.file, &list)?)
    }

    fn signal(&self, name: &str, signal: Signal) -> Result<(), Error> {
        self.servers.get(name).ok_or("no such server")?.process.signal(signal)
    }

    fn take(&mut self, name: &str) -> Result<Process, Error> {
        Ok(self.servers.remove(name).ok_or("no such server")?.process)
    }
}

/// What became of the calls of a step.
#[derive(Default)]
struct Tally {
    by: BTreeMap<String, u64>,
    failed: u64,
    unknown: u64,
    attempts: u64,
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

    /// In one line, for another process: what failed, what may have run, attempts, who answered, and an error behind a
    /// tab.
    fn to_line(&self) -> String {
        let mut line = format!("{} {} {}", self.failed, self.unknown, self.attempts);
        self.by.iter().for_each(|(name, count)| line.push_str(&format!(" {name}={count}")));
        format!("{line}\t{}", self.example.as_deref().unwrap_or_default())
    }

    /// Adds what another process counted.
    fn add_line(&mut self, line: &str) -> Result<(), Error> {
        let (counts, example) = line.split_once('\t').ok_or("no tally")?;
        let mut counts = counts.split(' ');
        for number in [&mut self.failed, &mut self.unknown, &mut self.attempts] {
            *number += counts.next().ok_or("no tally")?.parse::<u64>()?;
        }
        for count in counts {
            let (name, count) = count.split_once('=').ok_or("no tally")?;
            *self.by.entry(name.to_owned()).or_default() += count.parse::<u64>()?;
        }
        if !example.is_empty() {
            self.example.get_or_insert(example.to_owned());
        }
        Ok(())
    }

    fn answered(&self) -> u64 {
        self.by.values().sum()
    }

    /// How many of the calls one of them answered, in parts of what each would if they were alike.
    fn share(&self, name: &str) -> f64 {
        let count = self.by.get(name).copied().unwrap_or_default();
        (count * self.by.len() as u64) as f64 / self.answered().max(1) as f64
    }

    fn say(&self, step: &str) {
        let all = self.answered();
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

/// What a client process does: calls whom the file names, and says what became of it each time that it is asked; at
/// last, how a call would be decided.
fn call_those_of(file: &Path, warm_up: Duration) -> Result<(), Error> {
    let mut settings = Settings::new();
    settings.warm_up = warm_up;
    let balanced = Balanced::new(Clients::new()?, settings)?;
    let _watching =
        Watch::new(Wanted::service("shop")).start(FileSource::new(file), balanced.clone())?;
    let is_ready = |host: &HostReport| host.readiness == Readiness::Ready;
    while balanced.explain(0).hosts.iter().filter(|host| is_ready(host)).count() < 5 {
        thread::sleep(Duration::from_millis(10));
    }
    println!("ready");
    io::stdout().flush()?;
    // A call to a server that is stopped is given up soon.
    let options = CallOptions::new().deadline(Duration::from_millis(300));
    let shop = ShopClient::new(balanced.clone()).with_options(options);
    let (tally, stop) = (Mutex::new(Tally::default()), AtomicBool::new(false));
    let mut attempts = 0;
    thread::scope(|scope| {
        scope.spawn(|| call(&shop, &tally, &stop));
        let answered = io::stdin().lines().try_for_each(|line| {
            line?;
            let tally = tally.lock().map(|mut tally| std::mem::take(&mut *tally));
            let mut tally = tally.unwrap_or_default();
            tally.attempts = balanced.counts().attempts - attempts;
            attempts += tally.attempts;
            println!("{}", tally.to_line());
            io::stdout().flush()
        });
        stop.store(true, Ordering::Relaxed);
        answered
    })?;
    print!("{}", balanced.explain("example.Shop/order"));
    Ok(())
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = env::args().collect();
    match &arguments[1..] {
        [what, name] if what == "serve" => return serve(name),
        [what, file, seconds] if what == "call" => {
            return call_those_of(Path::new(file), Duration::from_secs_f64(seconds.parse()?));
        }
        _ => {}
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
    let seconds = step.as_secs_f64().to_string();
    let role: [&OsStr; 3] = ["call".as_ref(), cluster.file.as_ref(), seconds.as_ref()];
    let mut clients: Vec<Process> = Vec::new();
    for _ in 0..3 {
        clients.push(Process::start(&role)?);
    }
    clients.iter_mut().try_for_each(|client| client.line().map(drop))?;
    let steps = steps(&mut cluster, &mut clients, step)?;
    let mut decided = String::new();
    for client in clients {
        decided = client.end()?;
    }
    println!("\nhow one of the clients would decide a call now:\n{decided}");
    judge(&steps)
}

/// What must hold, as in the simulated worlds, with what a machine that does other things as well may add.
fn judge(steps: &[(String, Tally)]) -> Result<(), Error> {
    let (mut calls, mut attempts) = (0, 0);
    for (what, tally) in steps {
        let lost = (tally.unknown * 5) as f64 / tally.answered().max(1) as f64;
        let busiest = tally.by.keys().map(|name| tally.share(name)).fold(0.0, f64::max);
        match &what[..] {
            _ if tally.failed > 0 => {
                return Err(
                    format!("{what}: {} calls failed that need not have", tally.failed).into()
                );
            }
            "five servers" if busiest > 3.0 => {
                return Err(format!("{what}: the busiest has {busiest:.1} times its share").into());
            }
            // Orders that it was sent are lost, and they are half of the calls: half a share if it still got its own.
            "s3 is stopped" if lost > 0.25 => {
                return Err(
                    format!("{what}: it still gets calls, {lost:.2} of a share lost").into()
                );
            }
            // Each of the three clients had one call under way; as many again, until all know.
            "s2 is killed" if tally.unknown > 6 => {
                return Err(format!("{what}: {} orders lost at it", tally.unknown).into());
            }
            "s3 is stopped" | "s2 is killed" | "s3 goes on" => {}
            // In order nothing is lost, unless this machine has done something else for as long as a call has.
            _ if tally.unknown > 6 && tally.unknown * 1000 > tally.answered() => {
                return Err(format!("{what}: {} orders lost", tally.unknown).into());
            }
            _ => {}
        }
        calls += tally.answered() + tally.unknown;
        attempts += tally.attempts;
    }
    let a_call = attempts as f64 / calls.max(1) as f64;
    println!("{a_call:.3} attempts a call");
    if a_call > 1.1 { Err("more than 1.1 attempts a call".into()) } else { Ok(()) }
}

/// What happens to the servers, and what became of the calls in each step.
fn steps(
    cluster: &mut Cluster,
    clients: &mut [Process],
    step: Duration,
) -> Result<Vec<(String, Tally)>, Error> {
    let mut steps = Vec::new();
    let mut pass = |what: &str| -> Result<(), Error> {
        thread::sleep(step);
        let mut tally = Tally::default();
        clients.iter_mut().try_for_each(|client| tally.add_line(&client.ask()?))?;
        tally.say(what);
        steps.push((what.to_owned(), tally));
        Ok(())
    };
    pass("five servers")?;
    // Without a word to anybody; the list still has it.
    cluster.signal("s2", Signal::KILL)?;
    pass("s2 is killed")?;
    drop(cluster.take("s2")?);
    cluster.start("s2")?;
    pass("s2 is back")?;
    cluster.signal("s3", Signal::STOP)?;
    pass("s3 is stopped")?;
    cluster.signal("s3", Signal::CONT)?;
    pass("s3 goes on")?;
    cluster.start("s6")?;
    pass("s6 is added")?;
    let began = Instant::now();
    for name in ["s1", "s2", "s3", "s4", "s5", "s6"] {
        let old = cluster.take(name)?;
        cluster.start(name)?;
        // Callers hear of a list within a quarter of a second, and then connect.
        thread::sleep(HEARD);
        old.end()?;
    }
    pass(&format!("all restarted ({} ms)", began.elapsed().as_millis()))?;
    let gone = cluster.take("s6")?;
    cluster.publish()?;
    thread::sleep(HEARD);
    gone.end()?;
    pass("s6 is removed")?;
    Ok(steps)
}

//! The server that is attacked: everything is as by default, but for what the command line says.

use std::io::BufRead;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use ringcall::{Body, Bytes, Context, Items, RunningServer, Server, Stream, View};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CpuSet, capabilities, sched_getaffinity, sched_setaffinity, set_capabilities,
};

use crate::live::Live;
use crate::process::{Report, Started};

/// What there is to attack. Methods whose bodies are bytes can be called without knowing any layout.
#[ringcall::service(name = "hostile.Victim")]
pub trait Victim {
    /// Replies with the body.
    async fn echo(&self, body: Body) -> Bytes;
    /// Replies with the body's length, as `u64`.
    async fn measure(&self, body: Body) -> Bytes;
    /// Replies after as many milliseconds as the body says, a `u32`.
    async fn hold(&self, cx: &Context, body: Body) -> Bytes;
    /// As many items as the first `u32` of the body says, of as many bytes as the second.
    async fn count(&self, body: Bytes) -> impl Stream<Item = Bytes>;
    /// Takes an item each time that as many milliseconds have passed as the body says, a `u32`; replies with
    /// how many there were, a `u64`.
    async fn gather(&self, cx: &Context, body: Bytes, parts: Items<Bytes>) -> Bytes;
    /// Takes the body and says nothing.
    #[method(one_way)]
    async fn toss(&self, body: Body);
    /// Replies with how many items there are.
    async fn typed(&self, basket: View<Basket>) -> u64;
    /// The whole process aborts, if it was started such that it may.
    async fn abort(&self) -> u64;
}

/// A value with something to nest and to repeat.
#[ringcall::message]
#[derive(Debug)]
pub struct Basket {
    /// What is in it.
    pub items: Vec<Thing>,
}

/// Takes more memory than its name in MessagePack.
#[ringcall::message]
#[derive(Debug)]
pub struct Thing {
    /// Text.
    #[serde(default)]
    pub name: String,
    /// Numbers.
    #[serde(default)]
    pub sizes: [u64; 4],
}

struct Target {
    is_mortal: bool,
}

impl Victim for Target {
    async fn echo(&self, body: Body) -> Bytes {
        body.share().into()
    }

    async fn measure(&self, body: Body) -> Bytes {
        number(body.len() as u64)
    }

    async fn hold(&self, cx: &Context, body: Body) -> Bytes {
        cx.sleep(Duration::from_millis(word(&body, 0).into())).await;
        Bytes::new()
    }

    async fn count(&self, body: Bytes) -> impl Stream<Item = Bytes> {
        Counted { left: word(&body, 0), item: vec![0; word(&body, 4).min(1 << 20) as usize].into() }
    }

    async fn gather(&self, cx: &Context, body: Bytes, mut parts: Items<Bytes>) -> Bytes {
        let mut count = 0;
        while parts.next().await.is_some() {
            count += 1;
            match word(&body, 0) {
                0 => {}
                pause_ms => cx.sleep(Duration::from_millis(pause_ms.into())).await,
            }
        }
        number(count)
    }

    async fn toss(&self, _body: Body) {}

    async fn typed(&self, basket: View<Basket>) -> u64 {
        basket.items.len() as u64
    }

    async fn abort(&self) -> u64 {
        if self.is_mortal {
            std::process::abort();
        }
        0
    }
}

/// The little-endian word at an offset; 0 where there is none.
fn word(body: &[u8], at: usize) -> u32 {
    let bytes = body.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_le_bytes)
}

fn number(value: u64) -> Bytes {
    Bytes::copy_from_slice(&value.to_le_bytes())
}

struct Counted {
    left: u32,
    item: Bytes,
}

impl Stream for Counted {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, _cx: &mut TaskContext<'_>) -> Poll<Option<Bytes>> {
        let Some(left) = self.left.checked_sub(1) else { return Poll::Ready(None) };
        self.left = left;
        Poll::Ready(Some(self.item.clone()))
    }
}

/// How the server is started. The engine is that of `RINGCALL_TRANSPORT`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Setting {
    /// Where it listens; any port of this machine if not said.
    pub address: Option<String>,
    /// The core that it runs on.
    pub core: Option<usize>,
    /// The control group that it enters, as the path of its `cgroup.procs`.
    pub group: Option<String>,
    /// How many descriptors it may open.
    pub files: Option<u64>,
    /// How many KiB it may lock, as an ordinary user.
    pub locked_kib: Option<u64>,
    /// Whether `abort` does.
    pub is_mortal: bool,
}

impl Setting {
    /// As arguments of the program.
    #[must_use]
    pub fn to_arguments(&self) -> Vec<String> {
        let texts = [("--address", self.address.clone()), ("--group", self.group.clone())];
        let numbers = [
            ("--core", self.core.map(|core| core as u64)),
            ("--files", self.files),
            ("--locked-kib", self.locked_kib),
        ];
        let numbers = numbers.map(|(name, value)| (name, value.map(|value| value.to_string())));
        let valued =
            texts.into_iter().chain(numbers).filter_map(|(name, value)| Some((name, value?)));
        let mut arguments: Vec<String> =
            valued.flat_map(|(name, value)| [name.to_owned(), value]).collect();
        arguments.extend(self.is_mortal.then(|| "--mortal".to_owned()));
        arguments
    }

    /// The reverse.
    ///
    /// # Errors
    /// When an argument is none.
    pub fn from_arguments(arguments: &[&str]) -> Result<Setting, String> {
        let mut setting = Setting::default();
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
            let number =
                |text: &str| text.parse().map_err(|_| format!("{name}: {text} is no number"));
            match *name {
                "--address" => setting.address = Some((*value()?).to_owned()),
                "--group" => setting.group = Some((*value()?).to_owned()),
                "--core" => setting.core = Some(number(value()?)? as usize),
                "--files" => setting.files = Some(number(value()?)?),
                "--locked-kib" => setting.locked_kib = Some(number(value()?)?),
                "--mortal" => setting.is_mortal = true,
                _ => return Err(format!("what is {name}?")),
            }
        }
        Ok(setting)
    }
}

/// Serves until standard input ends, which it does when whoever started this is gone. Says what it is on standard
/// output in the first line, for each line that comes what it has allocated, and what became of it in the last.
///
/// # Errors
/// When it cannot be as it should.
#[allow(clippy::print_stdout, reason = "that is how it answers")]
pub fn serve(setting: &Setting) -> Result<(), String> {
    confine(setting)?;
    let address = setting.address.as_deref().unwrap_or("127.0.0.1:0");
    let target = Target { is_mortal: setting.is_mortal };
    let server = Server::bind(address).service(target.into_victim());
    let server = server.start().map_err(|error| error.to_string())?;
    println!("{}", to_line(&Started::of(&server)));
    for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
        println!("{}", to_line(&Live::now()));
    }
    println!("{}", to_line(&report(server)));
    Ok(())
}

fn report(server: RunningServer) -> Report {
    let incidents =
        server.incidents().iter().map(|(name, count)| (name.to_owned(), count)).collect();
    // Calls that were left behind need not be waited for.
    Report { incidents, requests: server.stop().requests_taken }
}

fn to_line(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain values")
}

/// Limits of this process and of the threads that it will have.
fn confine(setting: &Setting) -> Result<(), String> {
    let failed = |what: &'static str| move |error| format!("{what}: {error}");
    if let Some(group) = &setting.group {
        std::fs::write(group, "0").map_err(|error| format!("{group}: {error}"))?;
    }
    if let Some(core) = setting.core {
        pin(core).map_err(failed("affinity"))?;
    }
    if let Some(files) = setting.files {
        limit(Resource::Nofile, files).map_err(failed("descriptors"))?;
    }
    if let Some(kib) = setting.locked_kib {
        let mut sets = capabilities(None).map_err(failed("rights"))?;
        sets.effective.remove(CapabilitySet::IPC_LOCK);
        set_capabilities(None, sets).map_err(failed("rights"))?;
        limit(Resource::Memlock, kib << 10).map_err(failed("locked memory"))?;
    }
    Ok(())
}

fn limit(what: Resource, most: u64) -> rustix::io::Result<()> {
    setrlimit(what, Rlimit { current: Some(most), ..getrlimit(what) })
}

/// This thread, and those that it starts, run on one core; on any if there is only one.
///
/// # Errors
/// When the core may not be used.
pub fn pin(core: usize) -> rustix::io::Result<()> {
    if sched_getaffinity(None)?.count() < 2 {
        return Ok(());
    }
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set)
}

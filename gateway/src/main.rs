//! `ringcall-gateway`: services of a server of ringcall over HTTP, see the library of this package.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, reason = "it talks to whoever runs it")]

use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use http::HeaderName;
use ringcall::{AnyChannel, Client};
use ringcall_gateway::{BadGatewayConfig, Gateway, GatewayConfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Services of a ringcall server over HTTP, with JSON.
///
/// POST /package.Service/method makes a call: the body is its argument, the answer its reply; streams are lines of JSON. / is a
/// console, /openapi.json describes what there is, /healthz says whether the server answers. The server has to offer
/// ringcall.Reflection.
///
/// The gateway has no authentication of its own: who reaches it can call everything.
#[derive(Parser, Debug)]
#[command(name = "ringcall-gateway", version, max_term_width = 100)]
struct Options {
    /// The server: 127.0.0.1:7000, name:7000 or unix:/path
    #[arg(long, value_name = "ADDRESS")]
    to: String,

    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// A host that requests may be for; may be repeated. Without, localhost if that is where it listens, else any
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,

    /// How long a call waits if neither its request nor its method says
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    deadline: Duration,

    /// How long a call waits at most
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    deadline_max: Duration,

    /// How often to ask the server what it serves
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    refresh: Duration,

    /// How long what runs may take to end after SIGTERM or SIGINT; a second one ends at once
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    drain_timeout: Duration,

    /// How long a body may be, or each line of one with items
    #[arg(long, value_name = "BYTES", default_value_t = GatewayConfig::default().body_bytes_max)]
    body_bytes_max: usize,

    /// How many calls may be under way
    #[arg(long, value_name = "CALLS", default_value_t = GatewayConfig::default().in_flight_max)]
    in_flight_max: usize,

    /// How many calls with streams may be under way, beside other calls
    #[arg(long, value_name = "STREAMS", default_value_t = GatewayConfig::default().streams_max)]
    streams_max: usize,

    /// How long nothing may come of a body with items that has not ended
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    stream_idle: Duration,

    /// After how long without anything a stream of the server sends an empty line
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    heartbeat: Duration,

    /// How many connections are served at a time
    #[arg(long, value_name = "COUNT", default_value_t = GatewayConfig::default().connections_max)]
    connections_max: usize,

    /// What the names of headers begin with that become metadata
    #[arg(long, value_name = "PREFIX", default_value_t = GatewayConfig::default().metadata_prefix)]
    metadata_prefix: String,

    /// Another header that becomes metadata, by its own name, such as authorization; may be repeated
    #[arg(long, value_name = "NAME")]
    forward_header: Vec<HeaderName>,

    /// What the console and the document are called
    #[arg(long, value_name = "TEXT", default_value_t = GatewayConfig::default().title)]
    title: String,

    /// Let pages of other origins make calls
    #[arg(long)]
    cross_site: bool,

    /// Serve no console
    #[arg(long)]
    no_console: bool,

    /// Serve no document
    #[arg(long)]
    no_openapi: bool,
}

impl Options {
    fn config(&self) -> GatewayConfig {
        let mut config = GatewayConfig::default();
        config.hosts = self.hosts();
        config.deadline = self.deadline;
        config.deadline_max = self.deadline_max;
        config.refresh = self.refresh;
        config.drain_timeout = self.drain_timeout;
        config.body_bytes_max = self.body_bytes_max;
        config.in_flight_max = self.in_flight_max;
        config.streams_max = self.streams_max;
        config.stream_idle = self.stream_idle;
        config.heartbeat = self.heartbeat;
        config.connections_max = self.connections_max;
        config.metadata_prefix = self.metadata_prefix.clone();
        config.forwarded_headers = self.forward_header.clone();
        config.title = self.title.clone();
        config.cross_site = self.cross_site;
        config.console = !self.no_console;
        config.openapi = !self.no_openapi;
        config
    }

    fn hosts(&self) -> Vec<String> {
        if self.host.is_empty() && self.listen.ip().is_loopback() {
            return ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec();
        }
        self.host.clone()
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    log::set_logger(&ToStderr).map(|()| log::set_max_level(log::LevelFilter::Info)).ok();
    match run(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringcall-gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let client = Client::connect(&*options.to).lazy().await;
    let client = client.map_err(|failure| format!("--to {}: {failure}", options.to))?;
    let gateway = Gateway::new(AnyChannel::new(client), options.config()).map_err(as_option)?;
    let listener = TcpListener::bind(options.listen).await.map_err(|error| {
        format!("cannot listen at {}: {error}; --listen takes another address", options.listen)
    })?;
    let mut signals = Signals::new()?;
    eprintln!("{} is at http://{}/", options.to, listener.local_addr()?);
    if !options.listen.ip().is_loopback() {
        eprintln!("whoever reaches this address can call everything: put something in front of it");
    }
    let (stop, stopping) = oneshot::channel::<()>();
    let mut serving = pin!(gateway.serve(listener, async { drop(stopping.await) }));
    tokio::select! {
        _ = &mut serving => return Ok(()),
        () = signals.next() => drop(stop),
    }
    tokio::select! {
        stopped = &mut serving => match stopped.cut_off {
            0 => Ok(()),
            cut_off => Err(format!("{cut_off} connections were cut off (--drain-timeout)").into()),
        },
        () = signals.next() => Err("told to end at once".into()),
    }
}

/// A setting by the name that it has here.
fn as_option(bad: BadGatewayConfig) -> String {
    format!("--{} must be {}", bad.setting().replace('_', "-"), bad.must())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Signals { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

struct ToStderr;

impl log::Log for ToStderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() <= log::max_level() {
            eprintln!("{}: {}", record.level().as_str().to_lowercase(), record.args());
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn options_make_sense_and_their_defaults_are_those_of_the_library() {
        Options::command().debug_assert();
        let of = |more: &[&str]| {
            let arguments = ["ringcall-gateway", "--to", "127.0.0.1:7000"];
            Options::parse_from(arguments.iter().chain(more)).config()
        };
        assert_eq!(of(&["--listen", "0.0.0.0:80"]), GatewayConfig::default());
        // A page that has its name point to this machine is not answered.
        assert_eq!(of(&[]).hosts, ["localhost", "127.0.0.1", "[::1]"]);
        assert_eq!(of(&["--host", "example.test"]).hosts, ["example.test"]);
        let config = of(&["--no-console", "--no-openapi", "--forward-header", "authorization"]);
        assert!(!config.console && !config.openapi);
        assert_eq!(config.forwarded_headers, ["authorization"]);
    }
}

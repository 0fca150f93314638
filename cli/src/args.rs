//! What is said on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use ringcall::{Codec, TransportChoice};

/// Lists, describes and calls the services of a ringcall server, with values of JSON, and loads it.
#[derive(Debug, Parser)]
#[command(name = "ringcall", version, after_help = HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const HELP: &str = "\
ADDRESS is host:port, [ipv6]:port or unix:/path; or registry:NODE[,NODE...]/SERVICE, for the instances of a
service that the nodes of a registry know (not for ping and top).

Exit codes: 0 done, 1 error of the handler, 2 mistake of the caller, 3 failed call, 4 cannot connect, 5 not ready.

  ringcall list 127.0.0.1:7000
  ringcall describe 127.0.0.1:7000 market.Quotes/last
  ringcall call 127.0.0.1:7000 market.Quotes/last '{\"code\": \"ABC\"}'
  ringcall load 127.0.0.1:7000 market.Quotes/last '{\"code\": \"ABC\"}' --duration 10s
  ringcall health 127.0.0.1:7000 market.Quotes
  ringcall top 127.0.0.1:7000";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows the services of a server and their methods, a line each
    List(List),
    /// Shows docs, signatures, types and an example of the argument
    Describe(Describe),
    /// Makes one call and prints the reply
    Call(Call),
    /// Makes many calls and measures how many a second, and how long they take
    Load(Load),
    /// Connects and measures how far away the server is
    Ping(Ping),
    /// Asks whether the server, or one of its services, is ready: the exit code says it
    Health(Health),
    /// Shows what the server does: calls a second of each method, and how long they take
    Top(Top),
}

impl Command {
    pub(crate) fn is_json(&self) -> bool {
        match self {
            Command::List(args) => args.server.json,
            Command::Describe(args) => args.server.json || args.schema,
            Command::Call(args) => args.server.json,
            Command::Load(args) => args.server.json,
            Command::Ping(args) => args.server.json,
            Command::Health(args) => args.server.json,
            Command::Top(args) => args.server.json,
        }
    }
}

/// Which server, and how to reach it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ServerArgs {
    /// host:port, [ipv6]:port, unix:/path, or registry:NODE[,NODE...]/SERVICE
    pub(crate) address: String,
    /// What moves the bytes: auto, uring or epoll
    #[arg(long, default_value_t, help_heading = CONNECTION)]
    pub(crate) transport: TransportChoice,
    /// How long connecting may take: 1s, and 5s for the handshake, unless given
    #[arg(long, value_name = "TIME", value_parser = more_than_zero, help_heading = CONNECTION)]
    pub(crate) connect_timeout: Option<Duration>,
    /// Shows the server what is in this file: a token, for example
    #[arg(long, value_name = "FILE", help_heading = CONNECTION)]
    pub(crate) credentials: Option<PathBuf>,
    #[cfg(feature = "tls")]
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    /// Prints JSON, for scripts
    #[arg(long)]
    pub(crate) json: bool,
}

const CONNECTION: &str = "Connection";

/// How the connection is protected.
#[cfg(feature = "tls")]
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TlsArgs {
    /// Speaks TLS 1.3
    #[arg(id = "tls", long = "tls", help_heading = CONNECTION)]
    pub(crate) is_wanted: bool,
    /// The authorities to trust, PEM: those that browsers trust unless given
    #[arg(long, value_name = "FILE", requires = "tls", help_heading = CONNECTION)]
    pub(crate) ca: Option<PathBuf>,
    /// The name that the server's certificate must have, if not the host's
    #[arg(id = "tls-name", long, value_name = "NAME", requires = "tls", help_heading = CONNECTION)]
    pub(crate) name: Option<String>,
    /// The certificate to show, PEM
    #[arg(long, value_name = "FILE", requires_all = ["tls", "key"], help_heading = CONNECTION)]
    pub(crate) cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = CONNECTION)]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Describe {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// SERVICE or SERVICE/METHOD: all of them unless given
    #[arg(value_name = "NAME")]
    pub(crate) of: Option<String>,
    /// Prints JSON Schema of argument, reply and error
    #[arg(long)]
    pub(crate) schema: bool,
}

/// A method, its argument, and what goes with a call of it.
#[derive(Debug, clap::Args)]
pub(crate) struct CallArgs {
    /// SERVICE/METHOD
    pub(crate) method: String,
    /// JSON, @FILE, or - for standard input
    #[arg(allow_hyphen_values = true)]
    pub(crate) argument: Option<String>,
    /// How long a call may take: what the method says unless given, or 1s
    #[arg(long, value_name = "TIME", value_parser = more_than_zero)]
    pub(crate) deadline: Option<Duration>,
    /// An entry of metadata; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = entry)]
    pub(crate) metadata: Vec<(String, String)>,
    /// The group of servers that is asked for
    #[arg(long)]
    pub(crate) group: Option<String>,
    /// Sends the bytes of the argument as they are; the server is not asked for types
    #[arg(long)]
    pub(crate) raw: bool,
    /// What these bytes are
    #[arg(long, value_enum, default_value_t, requires = "raw")]
    pub(crate) codec: RawCodec,
}

/// What bytes are that are sent as they are.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum RawCodec {
    /// What the method takes, if that is bytes
    #[default]
    Raw,
    /// A message in MessagePack
    Messagepack,
    /// A message in JSON, if the server reads that
    Json,
}

impl From<RawCodec> for Codec {
    fn from(codec: RawCodec) -> Codec {
        match codec {
            RawCodec::Raw => Codec::RAW,
            RawCodec::Messagepack => Codec::MESSAGEPACK,
            RawCodec::Json => Codec::JSON,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Call {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(flatten)]
    pub(crate) call: CallArgs,
    /// Names what the call is to do, so that a server that keeps answers does it once
    #[arg(long, value_name = "KEY", value_parser = idempotency_key)]
    pub(crate) idempotency_key: Option<String>,
    /// Does not compare the argument with the method's type
    #[arg(long, conflicts_with = "raw")]
    pub(crate) unchecked: bool,
    /// What is sent to a method that takes a stream, values of JSON one after another: such, @FILE, or - for standard input
    #[arg(long, value_name = "ITEMS", allow_hyphen_values = true, conflicts_with_all = ["raw", "unchecked"])]
    pub(crate) items: Option<String>,
    /// Shows what comes beside the reply: metadata, times, how busy the server is
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Load {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(flatten)]
    pub(crate) call: CallArgs,
    /// How many calls are under way at the same time, at most
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) in_flight: u32,
    /// How many connections they share, to one server
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) connections: u32,
    /// How long to go on
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Calls a second; as many as there are replies for unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) rate: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Ping {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// How many round trips
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) count: u32,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Health {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// The full name of a service: the server as a whole unless given
    #[arg(value_name = "SERVICE", default_value = "", hide_default_value = true)]
    pub(crate) of: String,
    /// How long an answer may take
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = more_than_zero)]
    pub(crate) deadline: Duration,
    /// Asks again until it is ready, for so long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) wait: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Top {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// How far apart two looks are
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(crate) every: Duration,
    /// How many times it is shown: until it is interrupted unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) times: Option<u32>,
    /// Shows what was counted since the beginning, once
    #[arg(long, conflicts_with_all = ["every", "times"])]
    pub(crate) total: bool,
    /// Tells the peers of a method apart
    #[arg(long)]
    pub(crate) peers: bool,
    /// How many methods are shown at most
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) rows: usize,
}

fn more_than_zero(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time.is_zero() => Err("it must be more than zero".to_owned()),
        Ok(time) => Ok(time),
        Err(error) => Err(format!("{error}; write 250ms, 5s or 1m 30s")),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    match more_than_zero(text)? {
        time if time > DAY => Err("it may be a day at most".to_owned()),
        time => Ok(time),
    }
}

fn entry(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = parts.ok_or("write it as key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn idempotency_key(text: &str) -> Result<String, String> {
    match text.len() {
        1..=256 => Ok(text.to_owned()),
        _ => Err("it has 1 to 256 bytes".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Args::command().debug_assert();
    }

    #[test]
    fn values_are_read_as_people_write_them() {
        assert_eq!(more_than_zero("250ms"), Ok(Duration::from_millis(250)));
        assert!(more_than_zero("0s").is_err());
        assert!(more_than_zero("soon").unwrap_err().contains("250ms"));
        assert!(duration("2days").is_err());
        assert_eq!(entry("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(entry("=b").is_err() && entry("a").is_err());
        assert!(idempotency_key("").is_err() && idempotency_key(&"a".repeat(257)).is_err());
    }
}

//! A node of the registry, which is one of a centre of settings, too.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ringcall::reflection::{Interface, Reflection as _};
use ringcall::{Address, Register, Server, ShardConfig, StartError};
use ringcall_registry::{
    Centre, CentreConfig, Configuration as _, ConfigurationReplication as _, Node, NodeConfig,
    Registry as _, Replication as _,
};

/// A node of ringcall's registry. Start a few of them, each with the addresses of the others.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:7400")]
    listen: String,
    /// Where another node is; may be repeated.
    #[arg(long)]
    peer: Vec<String>,
    /// How many instances it keeps.
    #[arg(long, default_value_t = 100_000)]
    instances_max: usize,
    /// For how long instances are kept beyond their lease while a peer cannot be heard.
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration)]
    orphans: Duration,
    /// Where settings are kept. Without it the node takes none, and passes on what others keep.
    #[arg(long)]
    directory: Option<PathBuf>,
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Says where the node listens.
struct Announce;

impl Register for Announce {
    fn register(&mut self, address: &Address) -> Result<(), StartError> {
        log::info!("listens at {address}");
        Ok(())
    }

    fn unregister(&mut self) {
        log::info!("leaves");
    }
}

fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let mut config = CentreConfig::default();
    config.peers = options.peer.clone();
    config.directory = options.directory;
    let centre = Centre::open(config)?;
    log::info!("has {} settings", centre.counts().settings);
    let _tending_centre = centre.start(ShardConfig::default())?;

    let mut config = NodeConfig::default();
    config.peers = options.peer;
    config.instances_max = options.instances_max;
    config.orphans = options.orphans;
    config.centre = Some(centre.clone());
    let node = Node::new(config);
    let _tending = node.start(ShardConfig::default())?;

    Server::bind(options.listen.as_str())
        .register(Announce)
        .service(node.clone().into_registry())
        .service(node.into_replication())
        .service(centre.clone().into_configuration())
        .service(centre.into_configuration_replication())
        .service(Interface.into_reflection())
        .run()?;
    Ok(())
}

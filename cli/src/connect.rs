//! Connections.

use std::path::Path;
use std::time::{Duration, Instant};

use ringcall::{
    BlockingClient, Config, Credentials, LocalClient, Shard, ShardConfig, ToAddress as _,
};

use crate::args::ServerArgs;
use crate::argument::read_file;
use crate::exit::{Problem, told};

/// What a reply may have, and an argument: as much as the protocol allows.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A client with a connection, on this thread.
pub(crate) fn connect(args: &ServerArgs) -> Result<BlockingClient, Problem> {
    let shard = shard(args)?;
    let client = connect_on(&shard, args)?;
    Ok(BlockingClient::new(shard, client))
}

/// A shard of this thread.
pub(crate) fn shard(args: &ServerArgs) -> Result<Shard, Problem> {
    // Connecting says what became of it, not what was wrong with the text.
    args.address.target().map_err(Problem::misused)?;
    let mut config = ShardConfig::default();
    config.transport = args.transport;
    config.client = Config::new().message_bytes_max(MESSAGE_BYTES_MAX);
    if let Some(timeout) = args.connect_timeout {
        config.client = config.client.connect_timeout(timeout).handshake_timeout(timeout);
    }
    #[cfg(feature = "tls")]
    if args.tls.is_wanted {
        config.client_tls = Some(tls(&args.tls).map_err(Problem::misused)?);
    }
    Shard::new(config).map_err(|error| Problem::NotConnected(error.to_string()))
}

/// One connection of a shard.
pub(crate) fn connect_on(shard: &Shard, args: &ServerArgs) -> Result<LocalClient, Problem> {
    let mut connect = shard.connect(&args.address);
    if let Some(path) = &args.credentials {
        connect = connect.credentials(credentials(path)?);
    }
    let client = shard.block_on(connect);
    client.map_err(|failure| {
        let reason = told(&failure);
        Problem::NotConnected(format!("cannot connect to {}: {reason}", args.address))
    })
}

/// Without the end of the line that editors leave behind it.
fn credentials(path: &Path) -> Result<Credentials, Problem> {
    let bytes = read_file(path)?;
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    Credentials::new(bytes).map_err(|error| {
        Problem::misused(format_args!("the credentials in {}: {error}", path.display()))
    })
}

#[cfg(feature = "tls")]
fn tls(args: &crate::args::TlsArgs) -> Result<ringcall::TlsClient, ringcall::TlsConfigError> {
    use ringcall::{TlsClient, TlsIdentity, TlsRoots};
    let roots = match &args.ca {
        Some(path) => TlsRoots::from_pem_file(path)?,
        None => TlsRoots::web(),
    };
    let client = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => {
            TlsClient::mutual(roots, TlsIdentity::from_pem_files(cert, key)?)?
        }
        _ => TlsClient::new(roots)?,
    };
    match &args.name {
        Some(name) => client.server_name(name),
        None => Ok(client),
    }
}

/// What the clock says. This is a tool that measures.
pub(crate) fn now() -> Instant {
    #![expect(clippy::disallowed_methods, reason = "measures")]
    Instant::now()
}

/// How long ago that was.
pub(crate) fn since(start: Instant) -> Duration {
    now().saturating_duration_since(start)
}

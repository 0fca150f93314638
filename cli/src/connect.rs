//! Connections.

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use ringcall::cluster::Clients;
use ringcall::{
    BlockOn, Channel, Config, Credentials, LocalClient, Outgoing, Payload, Shard, ShardConfig,
    ToAddress as _, TransportInfo,
};

use crate::args::ServerArgs;
use crate::argument::read_file;
use crate::exit::{Problem, told};
use crate::reach::{Reached, ReachedCall, fleet, in_registry};

/// What a reply may have, and an argument: as much as the protocol allows.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// What was connected to, with the shard on this thread that waits for it.
#[derive(Debug)]
pub(crate) struct Connected {
    to: Reached,
    shard: Shard,
}

impl Connected {
    /// Whom calls go to.
    pub(crate) fn to(&self) -> &Reached {
        &self.to
    }

    /// Which engine moves the bytes.
    pub(crate) fn transport(&self) -> &TransportInfo {
        self.shard.transport()
    }
}

impl BlockOn for Connected {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.shard.block_on(future)
    }
}

impl Channel for Connected {
    type Body = <Reached as Channel>::Body;
    type Pending<'a, P>
        = ReachedCall<'a, P>
    where
        P: Payload + Clone + 'a;

    fn call<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> ReachedCall<'a, P> {
        self.to.call(call, payload)
    }
}

/// A channel to a server, or to the instances of a service, waited for on this thread.
pub(crate) fn connect(args: &ServerArgs) -> Result<Connected, Problem> {
    let shard = shard(args)?;
    let to = reach(&shard, args)?;
    Ok(Connected { to, shard })
}

/// A shard of this thread.
pub(crate) fn shard(args: &ServerArgs) -> Result<Shard, Problem> {
    if in_registry(&args.address).is_none() {
        // Connecting says what became of it, not what was wrong with the text.
        args.address.target().map_err(Problem::misused)?;
    }
    Shard::new(config(args)?).map_err(|error| Problem::NotConnected(error.to_string()))
}

fn config(args: &ServerArgs) -> Result<ShardConfig, Problem> {
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
    Ok(config)
}

/// A server, or the instances of a service; calls are waited for on the shard.
pub(crate) fn reach(shard: &Shard, args: &ServerArgs) -> Result<Reached, Problem> {
    let Some(place) = in_registry(&args.address) else {
        return connect_on(shard, args).map(Reached::One);
    };
    let config = config(args)?;
    let clients = Clients::over(args.transport);
    let clients = clients.map_err(|error| Problem::NotConnected(error.to_string()))?;
    let of_each = config.client.clone();
    #[cfg(feature = "tls")]
    let tls = config.client_tls.clone();
    // What is shown to instances is not for the nodes.
    let shown = args.credentials.as_deref().map(credentials).transpose()?;
    let clients = clients.with(move |mut connect| {
        connect = connect.config(of_each.clone());
        #[cfg(feature = "tls")]
        if let Some(tls) = &tls {
            connect = connect.tls(tls.clone());
        }
        match &shown {
            Some(shown) => connect.credentials(shown.clone()),
            None => connect,
        }
    });
    fleet(args, place, config, clients)
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

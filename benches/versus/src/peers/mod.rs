//! The others, each through its ordinary typed API: what a user would write, with the settings that its
//! documentation recommends for speed. All run on tokio, on a runtime of one thread.

mod capnp_rpc;
mod generated;
mod tarpc;
mod tonic;
mod volo_thrift;

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::Result;
use crate::cases::Case;
use crate::meter::{Measured, Watch};
use crate::subjects::{Peer, announce};

/// More than any message here.
const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// At least as many as any case has.
const IN_FLIGHT_MAX: usize = 1024;
/// What moves the peers' bytes.
const TRANSPORT: &str = "tokio";

pub(crate) fn tokio_runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// For callers. In an open loop one of them watches the clock, so the runtime is never idle; it then looks
/// for what has arrived after each task, instead of after 61 of them.
pub(crate) fn caller_runtime(case: &Case) -> Result<Runtime> {
    let mut builder = Builder::new_current_thread();
    if case.rate.is_some() {
        builder.event_interval(1);
    }
    Ok(builder.enable_all().build()?)
}

/// So many listeners of this runtime, which are announced.
async fn listen(count: usize) -> Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(TcpListener::bind("127.0.0.1:0").await?);
    }
    let addresses: Vec<_> =
        listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    announce(&addresses, TRANSPORT)?;
    Ok(listeners)
}

pub(crate) fn serve(peer: Peer, servers: usize) -> Result<()> {
    let runtime = tokio_runtime()?;
    match peer {
        Peer::Tonic => runtime.block_on(tonic::serve(servers, false)),
        Peer::TonicTls => runtime.block_on(tonic::serve(servers, true)),
        Peer::Tarpc => runtime.block_on(tarpc::serve(servers)),
        Peer::VoloThrift => runtime.block_on(volo_thrift::serve(servers)),
        Peer::CapnpRpc => runtime.block_on(capnp_rpc::serve(servers)),
    }
}

pub(crate) fn call(
    peer: Peer,
    case: &Case,
    servers: &[SocketAddr],
    watch: Watch,
) -> Result<Measured> {
    let runtime = caller_runtime(case)?;
    match peer {
        Peer::Tonic => runtime.block_on(tonic::call(case, false, servers, watch)),
        Peer::TonicTls => runtime.block_on(tonic::call(case, true, servers, watch)),
        Peer::Tarpc => runtime.block_on(tarpc::call(case, servers, watch)),
        Peer::VoloThrift => runtime.block_on(volo_thrift::call(case, servers, watch)),
        Peer::CapnpRpc => runtime.block_on(capnp_rpc::call(case, servers, watch)),
    }
}

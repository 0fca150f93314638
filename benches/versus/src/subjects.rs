//! Who is measured.

use std::fmt;
use std::io::Write;
use std::net::SocketAddr;

use ringcall::WaitPolicy;

use crate::cases::Case;
use crate::hosted::Host;
use crate::meter::{Measured, Watch};
use crate::ours::{Bodies, ClientKind, Engine, Ours};
use crate::{Result, floor, peers};

/// One row of a table.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) wait: WaitPolicy,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bare sockets.
    Floor,
    Ringcall(Ours),
    Peer(Peer),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Tonic,
    TonicTls,
    Tarpc,
    VoloThrift,
    CapnpRpc,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
}

const fn floor(name: &'static str, wait: WaitPolicy) -> Subject {
    Subject { name, wait, kind: Kind::Floor }
}

const fn ours(
    name: &'static str,
    wait: WaitPolicy,
    engine: Engine,
    client: ClientKind,
    bodies: Bodies,
) -> Subject {
    Subject { name, wait, kind: Kind::Ringcall(Ours { engine, client, bodies, tls: false }) }
}

const fn ours_tls(name: &'static str, wait: WaitPolicy, engine: Engine) -> Subject {
    let ours = Ours { engine, client: ClientKind::Shard, bodies: Bodies::Typed, tls: true };
    Subject { name, wait, kind: Kind::Ringcall(ours) }
}

const fn peer(name: &'static str, peer: Peer) -> Subject {
    Subject { name, wait: WaitPolicy::Park, kind: Kind::Peer(peer) }
}

pub(crate) const ALL: &[Subject] = &{
    use Bodies::{Owned, Raw, Typed};
    use ClientKind::{Blocking, CrossThread, Hosted, Shard};
    use Engine::{Epoll, Uring};
    use WaitPolicy::{Adaptive, Park, Spin};
    [
        floor("floor-spin", Spin),
        floor("floor-park", Park),
        ours("ringcall-epoll-spin", Spin, Epoll, Shard, Typed),
        ours("ringcall-epoll-adaptive", Adaptive, Epoll, Shard, Typed),
        ours("ringcall-epoll-park", Park, Epoll, Shard, Typed),
        ours("ringcall-uring-spin", Spin, Uring, Shard, Typed),
        ours("ringcall-uring-adaptive", Adaptive, Uring, Shard, Typed),
        ours("ringcall-uring-park", Park, Uring, Shard, Typed),
        ours("ringcall-blocking-spin", Spin, Epoll, Blocking, Typed),
        ours("ringcall-blocking-park", Park, Epoll, Blocking, Typed),
        ours("ringcall-client-tokio", Adaptive, Epoll, CrossThread, Typed),
        ours("ringcall-hosted-tokio", Adaptive, Epoll, Hosted(Host::Tokio), Typed),
        ours("ringcall-hosted-monoio", Adaptive, Uring, Hosted(Host::Monoio), Typed),
        ours("ringcall-owned-epoll-spin", Spin, Epoll, Shard, Owned),
        ours("ringcall-owned-epoll-park", Park, Epoll, Shard, Owned),
        ours("ringcall-raw-epoll-spin", Spin, Epoll, Shard, Raw),
        ours("ringcall-raw-epoll-park", Park, Epoll, Shard, Raw),
        ours_tls("ringcall-tls-epoll-spin", Spin, Epoll),
        ours_tls("ringcall-tls-epoll-park", Park, Epoll),
        ours_tls("ringcall-tls-uring-spin", Spin, Uring),
        ours_tls("ringcall-tls-uring-park", Park, Uring),
        peer("tonic", Peer::Tonic),
        peer("tonic-tls", Peer::TonicTls),
        peer("tarpc", Peer::Tarpc),
        peer("volo-thrift", Peer::VoloThrift),
        peer("capnp-rpc", Peer::CapnpRpc),
    ]
};

impl Subject {
    pub(crate) fn named(name: &str) -> Result<&'static Subject, String> {
        let found = ALL.iter().find(|subject| subject.name == name);
        found.ok_or_else(|| format!("there is no subject `{name}`; see --list"))
    }

    /// Whether there is something to be compared: an ordinary typed stream.
    fn can_stream(&self) -> bool {
        match self.kind {
            Kind::Floor => false,
            Kind::Ringcall(ours) => {
                ours.client == ClientKind::Shard && ours.bodies == Bodies::Typed
            }
            Kind::Peer(peer) => matches!(peer, Peer::Tonic | Peer::TonicTls),
        }
    }

    /// Whether its callers are tasks, so that one of them can watch the clock for all. Not monoio's: there a task that
    /// wakes itself goes before all others, which would wait for the one that watches.
    pub(crate) fn can_pace(&self) -> bool {
        match self.kind {
            Kind::Floor => false,
            Kind::Ringcall(ours) => {
                !matches!(ours.client, ClientKind::Blocking | ClientKind::Hosted(Host::Monoio))
            }
            Kind::Peer(_) => true,
        }
    }

    /// Whether it has a client of many servers. The floor has a socket to each, all of which it keeps equally busy.
    fn can_fan_out(&self) -> bool {
        match self.kind {
            Kind::Floor => true,
            Kind::Ringcall(ours) => ours.client != ClientKind::Blocking && !ours.tls,
            Kind::Peer(peer) => matches!(peer, Peer::Tonic | Peer::Tarpc | Peer::VoloThrift),
        }
    }

    /// Serves until the process is ended from outside.
    pub(crate) fn serve(&self, case: &Case) -> Result<()> {
        if case.servers > 1 && !self.can_fan_out() {
            return skip("no balanced client here");
        }
        match self.kind {
            Kind::Floor => floor::serve(case, self.wait),
            Kind::Ringcall(ours) => ours.serve(case, self.wait),
            Kind::Peer(peer) => peers::serve(peer, case.servers),
        }
    }

    pub(crate) fn call(
        &self,
        case: &Case,
        servers: &[SocketAddr],
        watch: Watch,
    ) -> Result<Measured> {
        if case.is_stream && !self.can_stream() {
            return skip("no stream here");
        }
        if case.rate.is_some() && !self.can_pace() {
            return skip("no open loop here");
        }
        match self.kind {
            Kind::Floor => floor::call(case, self.wait, servers, watch),
            Kind::Ringcall(ours) => ours.call(case, self.wait, servers, watch),
            Kind::Peer(peer) => peers::call(peer, case, servers, watch),
        }
    }
}

/// Tells whoever started this server where it is, at one address or several, and what moves its bytes.
pub(crate) fn announce<A: ToString>(addresses: &[A], transport: &str) -> Result<()> {
    let addresses: Vec<String> = addresses.iter().map(A::to_string).collect();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} {transport}", addresses.join(","))?;
    Ok(out.flush()?)
}

/// What was announced.
pub(crate) fn addresses(announced: &str) -> Result<Vec<SocketAddr>> {
    Ok(announced.split(',').map(str::parse).collect::<Result<_, _>>()?)
}

/// Why a subject cannot be measured here. Not a failure.
#[derive(Debug)]
pub(crate) struct Skipped(pub(crate) String);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

pub(crate) fn skip<T>(why: impl Into<String>) -> Result<T> {
    Err(Skipped(why.into()).into())
}

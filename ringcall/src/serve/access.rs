//! Who may connect, and who may call what.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringcall_core::frame::{Extensions, tag};
use ringcall_core::{Handle, Instant, Status};
#[cfg(feature = "tls")]
use ringcall_tls::PeerIdentity;
use subtle::ConstantTimeEq;

use crate::client::Credentials;

/// Whether two secrets are equal. How long it takes depends on their lengths, never on where they differ, so
/// that nobody can find a secret byte by byte by measuring.
#[must_use]
pub fn same_secret(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// What an authorization hook decides. The reason is for this side's log, it is not sent: it should not hold
/// what is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Go on.
    Allow,
    /// Credentials are missing or wrong. A call is refused with
    /// [`UNAUTHENTICATED`](Status::UNAUTHENTICATED), a connection is closed.
    Unauthenticated(Cow<'static, str>),
    /// Whoever it is may not do this. A call is refused with [`FORBIDDEN`](Status::FORBIDDEN), a connection is
    /// closed.
    Forbidden(Cow<'static, str>),
}

impl Access {
    /// Shorthand for [`Access::Unauthenticated`].
    pub fn unauthenticated(reason: impl Into<Cow<'static, str>>) -> Access {
        Access::Unauthenticated(reason.into())
    }

    /// Shorthand for [`Access::Forbidden`].
    pub fn forbidden(reason: impl Into<Cow<'static, str>>) -> Access {
        Access::Forbidden(reason.into())
    }

    fn refused(self) -> Option<(Status, Cow<'static, str>)> {
        match self {
            Access::Allow => None,
            Access::Unauthenticated(reason) => Some((Status::UNAUTHENTICATED, reason)),
            Access::Forbidden(reason) => Some((Status::FORBIDDEN, reason)),
        }
    }
}

/// What is known about who has connected.
#[derive(Clone, Debug, Default)]
pub struct ConnectionInfo {
    pub(crate) caller: Caller,
    pub(crate) credentials: Option<Credentials>,
}

impl ConnectionInfo {
    /// Whom its certificate names: with [mutual TLS](crate::TlsServer::mutual) only.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn peer_identity(&self) -> Option<&PeerIdentity> {
        self.caller.identity.as_deref()
    }

    /// Where it comes from: of a proxy, if there is one in front; `None` over a unix socket.
    #[must_use]
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.caller.address
    }

    /// What it showed to prove who it is, which nobody has checked yet.
    #[must_use]
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }
}

/// What is known about who calls, and what.
#[derive(Clone, Copy, Debug)]
pub struct CallerInfo<'a> {
    pub(crate) connection: &'a ConnectionInfo,
    pub(crate) method: &'static str,
    pub(crate) extensions: &'a [u8],
}

impl<'a> CallerInfo<'a> {
    /// The method's full name: `package.Service/method`.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// The connection that the call came by.
    #[must_use]
    pub fn connection(&self) -> &'a ConnectionInfo {
        self.connection
    }

    /// What came along with this very call to prove who makes it.
    #[must_use]
    pub fn credentials(&self) -> Option<&'a [u8]> {
        let mut shown = Extensions::new(self.extensions).flatten();
        shown.find(|extension| extension.tag == tag::CREDENTIALS).map(|extension| extension.value)
    }
}

/// Who is at the other side of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    pub(crate) address: Option<SocketAddr>,
    /// Whom its certificate names.
    #[cfg(feature = "tls")]
    pub(crate) identity: Option<Arc<PeerIdentity>>,
}

type ConnectionHook = Arc<dyn Fn(&ConnectionInfo) -> Access + Send + Sync>;
type CallHook = Arc<dyn Fn(&CallerInfo<'_>) -> Access + Send + Sync>;
type PriorityHook = Arc<dyn Fn(&CallerInfo<'_>) -> u8 + Send + Sync>;

/// The hooks of a server.
#[derive(Clone, Default)]
pub(crate) struct Authority {
    pub(crate) connections: Option<ConnectionHook>,
    pub(crate) calls: Option<CallHook>,
    /// How high a priority may be that a caller claims.
    pub(crate) priorities: Option<PriorityHook>,
    /// The group that the server is in.
    pub(crate) group: Option<Arc<str>>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// Calls that may be refused in [`REFUSALS_SPAN`] before their connection is closed.
const REFUSALS_MAX: u32 = 64;
const REFUSALS_SPAN: Duration = Duration::from_secs(10);

/// The gate of a shard: asks the hooks, and remembers who was let in.
pub(crate) struct Gate {
    authority: Authority,
    admitted: HashMap<Handle, Admitted>,
}

struct Admitted {
    info: Rc<ConnectionInfo>,
    refusals: u32,
    since: Instant,
}

impl Gate {
    pub(crate) fn new(authority: Authority) -> Gate {
        Gate { authority, admitted: HashMap::new() }
    }

    /// Whether nothing is asked about connections and calls.
    pub(crate) fn is_open(&self) -> bool {
        let Authority { connections, calls, priorities, group } = &self.authority;
        connections.is_none() && calls.is_none() && priorities.is_none() && group.is_none()
    }

    /// Whether it is asked who connects or calls.
    pub(crate) fn asks_callers(&self) -> bool {
        self.authority.connections.is_some() || self.authority.calls.is_some()
    }

    /// Whether a call was routed to this server's group, or to none.
    pub(crate) fn is_of_group(&self, extensions: &[u8]) -> bool {
        let Some(own) = &self.authority.group else { return true };
        let mut found = Extensions::new(extensions).flatten();
        let real = found.find(|found| found.tag == tag::REAL_GROUP);
        // Behind the version.
        real.is_none_or(|real| real.value.get(8..) == Some(own.as_bytes()))
    }

    /// The hook for calls, and who makes them.
    pub(crate) fn calls(&self, handle: Handle) -> Option<(CallHook, Rc<ConnectionInfo>)> {
        self.authority.calls.clone().map(|hook| (hook, self.info(handle)))
    }

    /// The hook for priorities, and who claims one.
    pub(crate) fn priorities(&self, handle: Handle) -> Option<(PriorityHook, Rc<ConnectionInfo>)> {
        self.authority.priorities.clone().map(|hook| (hook, self.info(handle)))
    }

    fn info(&self, handle: Handle) -> Rc<ConnectionInfo> {
        let admitted = self.admitted.get(&handle).map(|admitted| Rc::clone(&admitted.info));
        admitted.unwrap_or_default()
    }

    pub(crate) fn hook(&self) -> Option<ConnectionHook> {
        self.authority.connections.clone()
    }

    pub(crate) fn admit(&mut self, handle: Handle, info: ConnectionInfo, now: Instant) {
        if self.authority.calls.is_some() || self.authority.priorities.is_some() {
            let admitted = Admitted { info: Rc::new(info), refusals: 0, since: now };
            self.admitted.insert(handle, admitted);
        }
    }

    /// A call was refused; says whether the connection has had too many of them.
    pub(crate) fn refused(&mut self, handle: Handle, now: Instant) -> bool {
        let Some(admitted) = self.admitted.get_mut(&handle) else { return true };
        if now.since(admitted.since) >= REFUSALS_SPAN {
            (admitted.since, admitted.refusals) = (now, 0);
        }
        admitted.refusals += 1;
        admitted.refusals > REFUSALS_MAX
    }

    pub(crate) fn forget(&mut self, handle: Handle) {
        self.admitted.remove(&handle);
    }
}

/// What a hook came to: a hook that panics lets nobody in.
pub(crate) fn ask(hook: impl FnOnce() -> Access) -> Option<(Status, Cow<'static, str>)> {
    ask_or(Access::forbidden("the hook panicked"), hook).refused()
}

/// What a hook came to, or this if it panics.
pub(crate) fn ask_or<T>(panicked: T, hook: impl FnOnce() -> T) -> T {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(hook)).unwrap_or(panicked)
}

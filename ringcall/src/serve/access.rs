//! Who may connect, and who may call what.

use std::any::Any;
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

use super::ServiceTable;
use super::group::Groups;
use crate::Metadata;
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
    /// Go on, and handlers are told who it is, see [`allow_as`](Access::allow_as).
    AllowAs(Principal),
    /// Credentials are missing or wrong. A call is refused with
    /// [`UNAUTHENTICATED`](Status::UNAUTHENTICATED), a connection is closed.
    Unauthenticated(Cow<'static, str>),
    /// Whoever it is may not do this. A call is refused with [`FORBIDDEN`](Status::FORBIDDEN), a connection is
    /// closed.
    Forbidden(Cow<'static, str>),
}

impl Access {
    /// Go on as this: whatever the hook knows of who it is, such as a user with rights, of any type.
    /// Handlers, filters and the hooks that come later read it as `principal::<T>()`, of the same type:
    /// [`Context::principal`](crate::Context::principal). Of a connection it is for all of its calls; of a call it
    /// takes the place of its connection's.
    ///
    /// It costs one allocation, and a call that has one of its own a place in a table until it is answered; the
    /// calls of others cost nothing.
    ///
    /// ```
    /// use ringcall::{Access, Context, Refusal, Server};
    ///
    /// struct User {
    ///     name: String,
    /// }
    ///
    /// #[ringcall::service]
    /// trait Notes {
    ///     async fn whose(&self, cx: &Context) -> Result<String, Refusal>;
    /// }
    ///
    /// struct Desk;
    ///
    /// impl Notes for Desk {
    ///     async fn whose(&self, cx: &Context) -> Result<String, Refusal> {
    ///         let user: &User = cx.principal().ok_or(Refusal::unauthenticated())?;
    ///         Ok(user.name.clone())
    ///     }
    /// }
    ///
    /// # fn main() {
    /// let server = Server::bind("127.0.0.1:0").service(Desk.into_notes()).authorize(|connection| {
    ///     match connection.credentials() {
    ///         Some(shown) if shown.matches(b"ann's secret") => {
    ///             Access::allow_as(User { name: "ann".to_owned() })
    ///         }
    ///         _ => Access::unauthenticated("a token is missing or wrong"),
    ///     }
    /// });
    /// # drop(server);
    /// # }
    /// ```
    pub fn allow_as<T: Any + Send + Sync>(principal: T) -> Access {
        Access::AllowAs(Principal::new(principal))
    }

    /// Shorthand for [`Access::Unauthenticated`].
    pub fn unauthenticated(reason: impl Into<Cow<'static, str>>) -> Access {
        Access::Unauthenticated(reason.into())
    }

    /// Shorthand for [`Access::Forbidden`].
    pub fn forbidden(reason: impl Into<Cow<'static, str>>) -> Access {
        Access::Forbidden(reason.into())
    }

    /// As whom it may go on, or with what it is refused.
    fn decided(self) -> Decided {
        match self {
            Access::Allow => Ok(None),
            Access::AllowAs(principal) => Ok(Some(principal)),
            Access::Unauthenticated(reason) => Err((Status::UNAUTHENTICATED, reason)),
            Access::Forbidden(reason) => Err((Status::FORBIDDEN, reason)),
        }
    }
}

type Decided = Result<Option<Principal>, (Status, Cow<'static, str>)>;

/// Who was let in, as the hook says that has let it in: a value of any type, shared by all who look at it.
///
/// One is equal to its clones, and to nothing else.
#[derive(Clone)]
pub struct Principal(Arc<dyn Any + Send + Sync>);

impl Principal {
    /// Takes what is known.
    pub fn new<T: Any + Send + Sync>(principal: T) -> Principal {
        Principal(Arc::new(principal))
    }

    /// What is known, if it is of this type.
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

/// One that is shared already, such as by a cache of tokens: nothing is allocated. It is read as `T`.
impl<T: Any + Send + Sync> From<Arc<T>> for Principal {
    fn from(principal: Arc<T>) -> Principal {
        Principal(principal)
    }
}

impl PartialEq for Principal {
    fn eq(&self, other: &Principal) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.0), Arc::as_ptr(&other.0))
    }
}

impl Eq for Principal {}

/// Not what it is: that may be secret, and need not be printable.
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal").finish_non_exhaustive()
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

    /// Who it is, as [`authorize`](crate::Server::authorize) has found: `None` if it did not say so, see
    /// [`Access::allow_as`], or of another type, and in that hook itself.
    #[must_use]
    pub fn principal<T: Any>(&self) -> Option<&T> {
        self.caller.principal()
    }
}

/// What is known about who calls, and what.
#[derive(Clone, Copy, Debug)]
pub struct CallerInfo<'a> {
    connection: &'a ConnectionInfo,
    method: &'static str,
    metadata: Metadata<&'a [u8]>,
    principal: Option<&'a Principal>,
}

impl<'a> CallerInfo<'a> {
    /// About a call with these extensions.
    pub(crate) fn new(
        connection: &'a ConnectionInfo,
        method: &'static str,
        extensions: &'a [u8],
    ) -> CallerInfo<'a> {
        let principal = connection.caller.principal.as_ref();
        CallerInfo { connection, method, metadata: Metadata::new(extensions), principal }
    }

    /// The same of a call that was let in as somebody of its own.
    pub(crate) fn with_own(self, principal: Option<&'a Principal>) -> CallerInfo<'a> {
        CallerInfo { principal: principal.or(self.principal), ..self }
    }

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
        let mut shown = Extensions::new(self.metadata.0).flatten();
        shown.find(|extension| extension.tag == tag::CREDENTIALS).map(|extension| extension.value)
    }

    /// The call's metadata and context, as its caller says; nobody has checked it.
    #[must_use]
    pub fn metadata(&self) -> &Metadata<&'a [u8]> {
        &self.metadata
    }

    /// Who calls, as the hooks before this one have found ([`Access::allow_as`]): for
    /// [`authorize_calls`](crate::Server::authorize_calls) that is whoever has connected, and for
    /// [`priority_max`](crate::Server::priority_max) whom that hook has found.
    #[must_use]
    pub fn principal<T: Any>(&self) -> Option<&'a T> {
        self.principal?.get()
    }
}

/// Who is at the other side of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    pub(crate) address: Option<SocketAddr>,
    /// Whom its certificate names.
    #[cfg(feature = "tls")]
    pub(crate) identity: Option<Arc<PeerIdentity>>,
    /// Whom a hook has found it to be.
    pub(crate) principal: Option<Principal>,
    /// What is served to it, for handlers that are not on its shard.
    pub(crate) services: Option<Arc<[&'static ServiceTable]>>,
}

impl Caller {
    pub(crate) fn principal<T: Any>(&self) -> Option<&T> {
        self.principal.as_ref()?.get()
    }

    pub(crate) fn services(&self) -> Arc<[&'static ServiceTable]> {
        self.services.clone().unwrap_or_default()
    }
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
    /// Whose calls are served: at first that of the authority.
    groups: Groups,
    admitted: HashMap<Handle, Admitted>,
}

struct Admitted {
    info: Rc<ConnectionInfo>,
    refusals: u32,
    since: Instant,
}

impl Gate {
    pub(crate) fn new(authority: Authority) -> Gate {
        let groups = Groups::new(authority.group.clone());
        Gate { authority, groups, admitted: HashMap::new() }
    }

    /// Whether nothing is asked about connections and calls.
    pub(crate) fn is_open(&self) -> bool {
        let Authority { connections, calls, priorities, group: _ } = &self.authority;
        let asks = connections.is_some() || calls.is_some() || priorities.is_some();
        !asks && !self.groups.matter()
    }

    /// Whether it is asked who connects or calls.
    pub(crate) fn asks_callers(&self) -> bool {
        self.authority.connections.is_some() || self.authority.calls.is_some()
    }

    /// Whether a call was routed to this server's group, or to none.
    pub(crate) fn is_of_group(&self, extensions: &[u8], now: impl FnOnce() -> Instant) -> bool {
        if !self.groups.matter() {
            return true;
        }
        let mut found = Extensions::new(extensions).flatten();
        let real = found.find(|found| found.tag == tag::REAL_GROUP);
        // Behind the version.
        real.is_none_or(|real| self.groups.serve(real.value.get(8..), now))
    }

    /// The server is in another group now; calls to the one before are served until then.
    pub(crate) fn move_to(&mut self, group: Option<Arc<str>>, now: Instant, until: Instant) {
        self.groups.move_to(group, now, until);
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

    /// Whom the hook for connections has found.
    pub(crate) fn principal(&self, handle: Handle) -> Option<Principal> {
        self.admitted.get(&handle)?.info.caller.principal.clone()
    }

    pub(crate) fn hook(&self) -> Option<ConnectionHook> {
        self.authority.connections.clone()
    }

    pub(crate) fn admit(&mut self, handle: Handle, info: ConnectionInfo, now: Instant) {
        let Authority { calls, priorities, .. } = &self.authority;
        if calls.is_some() || priorities.is_some() || info.caller.principal.is_some() {
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
pub(crate) fn ask(hook: impl FnOnce() -> Access) -> Decided {
    ask_or(Access::forbidden("the hook panicked"), hook).decided()
}

/// What a hook came to, or this if it panics.
pub(crate) fn ask_or<T>(panicked: T, hook: impl FnOnce() -> T) -> T {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(hook)).unwrap_or(panicked)
}

//! Who may connect to a shard and call on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringcall_core::{CloseReason, Handle, Request, RequestId, Status};

use super::Inner;
use crate::client::Credentials;
use crate::serve::access::{Caller, CallerInfo, ConnectionInfo, Principal, ask, ask_or};
use crate::serve::group::ServedGroup;

impl Inner {
    /// Who is at the other side.
    pub(crate) fn caller(&self, handle: Handle) -> Caller {
        Caller {
            address: self.peer_address(handle),
            #[cfg(feature = "tls")]
            identity: self.peer_identity(handle),
            principal: None,
            services: None,
        }
    }

    /// The same, who makes this call, and what is served there.
    pub(crate) fn caller_of(&self, handle: Handle, request: RequestId) -> Caller {
        Caller {
            principal: self.principal(handle, request),
            services: Some(self.services(handle)),
            ..self.caller(handle)
        }
    }

    /// Whom a hook or a filter has found to make a call.
    #[inline]
    pub(crate) fn principal(&self, handle: Handle, request: RequestId) -> Option<Principal> {
        match self.knows_principals.get() {
            true => self.find_principal(handle, request),
            false => None,
        }
    }

    #[cold]
    fn find_principal(&self, handle: Handle, request: RequestId) -> Option<Principal> {
        let own = self.reply_metadata.principal(handle, request);
        own.or_else(|| self.gate.borrow().principal(handle))
    }

    /// From now on this call is made by somebody of its own.
    pub(crate) fn set_principal(&self, handle: Handle, request: RequestId, principal: Principal) {
        self.knows_principals.set(true);
        self.reply_metadata.set_principal(handle, request, principal);
    }

    /// Where a connection comes from that was accepted.
    pub(crate) fn peer_address(&self, handle: Handle) -> Option<SocketAddr> {
        self.origins.address(handle)
    }

    /// Whom the certificate of the other side names.
    #[cfg(feature = "tls")]
    pub(crate) fn peer_identity(&self, handle: Handle) -> Option<Arc<crate::PeerIdentity>> {
        let endpoint = self.endpoint.borrow();
        endpoint.layer(handle).and_then(|layer| layer.peer().cloned())
    }

    /// Somebody has connected and said who it is: may it?
    #[cold]
    pub(super) fn admit(&self, handle: Handle) {
        let mut info = ConnectionInfo {
            caller: self.caller(handle),
            credentials: self.endpoint.borrow().connection(handle).and_then(|connection| {
                connection.credentials().and_then(|shown| Credentials::new(shown).ok())
            }),
        };
        // The hook is somebody's code.
        let hook = self.gate.borrow().hook();
        match hook.map_or(Ok(None), |hook| ask(|| hook(&info))) {
            Ok(principal) => info.caller.principal = principal,
            Err((_, reason)) => {
                log::info!("a connection was denied: {reason}");
                return self.deny(handle);
            }
        }
        if info.caller.principal.is_some() {
            self.knows_principals.set(true);
        }
        let now = self.now();
        self.gate.borrow_mut().admit(handle, info, now);
    }

    fn deny(&self, handle: Handle) {
        self.remote.register.denied.add();
        let now = self.now();
        if let Some(connection) = self.endpoint.borrow_mut().connection_mut(handle) {
            connection.close(now, CloseReason::Denied);
        }
    }

    /// Whether this call may be made; if not, it is refused. If so, it has no higher priority than it may claim.
    #[cold]
    pub(super) fn may_call(
        &self,
        handle: Handle,
        request: &mut Request,
        method: &'static str,
    ) -> bool {
        let may =
            self.is_allowed(handle, request, method) && self.is_for_group(handle, request, method);
        if may && request.priority > 0 {
            self.bound_priority(handle, request, method);
        }
        may
    }

    fn is_allowed(&self, handle: Handle, request: &Request, method: &'static str) -> bool {
        let asked = self.gate.borrow().calls(handle);
        let Some((hook, info)) = asked else { return true };
        if self.client(handle).is_some() {
            // It did not connect: it is called what this shard has offered it.
            return true;
        }
        let call = CallerInfo::new(&info, method, &request.extensions);
        let (status, reason) = match ask(|| hook(&call)) {
            Ok(own) => {
                if let Some(own) = own {
                    self.set_principal(handle, request.id, own);
                }
                return true;
            }
            Err(refused) => refused,
        };
        log::debug!("a call of {} was refused: {reason}", method);
        self.refuse(handle, request.id, status);
        let now = self.now();
        let is_flood = self.gate.borrow_mut().refused(handle, now);
        if is_flood {
            log::info!("a connection was closed: too many of its calls were refused");
            self.deny(handle);
        }
        false
    }

    /// A call that claims to be more than ordinary gets no more than its caller may claim.
    fn bound_priority(&self, handle: Handle, request: &mut Request, method: &'static str) {
        let asked = self.gate.borrow().priorities(handle);
        if let Some((hook, info)) = asked {
            let own = self.reply_metadata.principal(handle, request.id);
            let call = CallerInfo::new(&info, method, &request.extensions).with_own(own.as_ref());
            request.priority = request.priority.min(ask_or(0, || hook(&call)));
        }
    }

    /// Whether a call was routed to the group of this server; if not, it is refused.
    fn is_for_group(&self, handle: Handle, request: &Request, method: &'static str) -> bool {
        let is = self.gate.borrow().is_of_group(&request.extensions, || self.now());
        if !is {
            log::debug!("a call of {method} was meant for another group");
            self.refuse(handle, request.id, Status::WRONG_GROUP);
        }
        is
    }

    pub(crate) fn served_group(&self) -> ServedGroup {
        self.served_group.clone()
    }

    /// The server is in another group now; calls to the one before are served for a while.
    pub(super) fn move_to_group(&self, group: Option<Arc<str>>, grace: Duration) {
        let now = self.now();
        let is_guarded = {
            let mut gate = self.gate.borrow_mut();
            gate.move_to(group, now, now + grace);
            !gate.is_open()
        };
        self.is_guarded.set(is_guarded);
        if is_guarded {
            self.calls_are_plain.set(false);
        }
    }
}

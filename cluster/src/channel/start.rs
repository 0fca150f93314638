//! How an attempt of a call begins, the same for calls with streams and for others.

use std::sync::Arc;

use ringcall_core::frame::request_flags;
use ringcall_core::{Cause, Failure, Outgoing, Payload};

use super::{Connector, Guard as _, Shared};
use crate::fleet::{Attempt, CallState};
use crate::route::Asked;

/// What a call is to its channel.
pub(super) struct Wanted<'a, P> {
    pub(super) call: &'a Outgoing,
    pub(super) payload: &'a P,
    pub(super) key: Option<u64>,
    pub(super) is_reported: bool,
}

/// What is known of a call once it has begun.
pub(super) struct Known<'a> {
    pub(super) state: &'a mut Option<CallState>,
    pub(super) operation: &'a mut Option<Arc<[u8]>>,
    pub(super) is_tied: &'a mut bool,
}

/// An attempt, the connection that it goes by, and the TLVs that it has beside its call's.
pub(super) type Started<C> = (Attempt, C, Option<Arc<[u8]>>);

impl<N: Connector> Shared<N> {
    /// Begins an attempt, and the call if it is the first. Nothing is begun if the call begins with this and a rule wants more
    /// of it first.
    #[inline(always)]
    pub(super) fn start<P: Payload>(
        &self,
        wanted: &Wanted<'_, P>,
        known: Known<'_>,
    ) -> Result<Option<Started<N::Channel>>, Failure> {
        let Known { state, operation, is_tied } = known;
        let now = self.connector.now();
        let Outgoing { name, method, flags, timeout, .. } = *wanted.call;
        let (extensions, argument) = (wanted.payload.extensions(), wanted.payload.argument());
        let asked = Asked { name, method, key: wanted.key, extensions, argument };
        let readiness = |channel: &N::Channel| self.connector.readiness(channel);
        self.fleet.with(|fleet| {
            if state.is_none() {
                let begun = if fleet.is_next_reported() || wanted.is_reported {
                    state.insert(fleet.begin_reported(now, &asked, flags, timeout, readiness)?)
                } else {
                    state.insert(fleet.begin(now, &asked, flags, timeout)?)
                };
                if fleet.wants_key(begun) && !asked.has_idempotency_key() {
                    *operation = Some(self.operations.next());
                }
                *is_tied = fleet.is_tied(begun);
                if begun.is_special() {
                    return Ok(None);
                }
            }
            let Some(state) = state else { return Ok(None) };
            if state.was_delayed_too_long(now) {
                return Err(Failure::not_sent(Cause::Expired));
            }
            let (attempt, channel) = fleet.start(now, &asked, state, readiness)?;
            let carried = fleet.carried(state, &attempt);
            Ok(Some((attempt, channel, carried)))
        })
    }
}

/// The call as this attempt makes it.
#[inline]
pub(super) fn outgoing(call: &Outgoing, attempt: &Attempt) -> Outgoing {
    let mut call = Outgoing { timeout: attempt.timeout, ..*call };
    if attempt.number > 0 {
        call.flags |= request_flags::RETRIED;
        call.attempt = call.attempt.saturating_add(attempt.number);
    }
    call
}

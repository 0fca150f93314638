//! Calls with idempotency keys, between their shard and their handlers.

use std::rc::Rc;

use super::deduplication::{Begun, KeptReply, Waiting};
use super::handler::Handler;
use super::incoming::{Facts, Incoming, Origin};
use super::slots::{Slots, Work};
use crate::shard::Inner;

/// Runs a handler once for each key, and says again what it came to.
pub(crate) struct Deduplicated {
    method: u64,
    handler: Box<dyn Handler>,
    repeats: Slots<Waiting, Repeat>,
}

impl Deduplicated {
    pub(crate) fn new(method: u64, handler: Box<dyn Handler>) -> Deduplicated {
        Deduplicated { method, handler, repeats: Slots::default() }
    }
}

impl Handler for Deduplicated {
    fn start(&self, call: &mut Incoming) {
        let Origin::Shard(shard) = &call.origin else { return };
        let (shard, facts) = (Rc::clone(shard), call.facts);
        match shard.begin_keyed(self.method, &facts, &call.extensions) {
            None => self.handler.start(call),
            Some(Begun::First) => {
                call.facts.outlasts_caller = true;
                self.handler.start(call);
            }
            Some(Begun::Waits(waiting)) => match self.repeats.build(|| Ok(waiting)) {
                Ok(slot) => self.repeats.start(slot, &shard, &facts, Repeat),
                Err(unbuilt) => unbuilt.answer(&shard, &facts),
            },
            Some(Begun::Ended(reply)) => shard.answer_again(&facts, &reply),
            Some(Begun::Refused(status)) => shard.refuse(facts.handle, facts.request, status),
        }
    }
}

/// What follows a call that waits for another one's answer: the same.
struct Repeat;

impl Work<KeptReply> for Repeat {
    fn ended(self, shard: &Rc<Inner>, facts: &Facts, reply: KeptReply) {
        shard.answer_again(facts, &reply);
    }
}

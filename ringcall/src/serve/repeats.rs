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
    fn start(&self, call: Incoming) {
        let Origin::Shard(shard) = &call.origin else { return };
        let (shard, facts) = (Rc::clone(shard), call.facts);
        match shard.begin_keyed(self.method, &facts, &call.extensions) {
            None | Some(Begun::First) => self.handler.start(call),
            Some(Begun::Waits(waiting)) => {
                self.repeats.start(&shard, waiting, Repeat { shard: Rc::clone(&shard), facts });
            }
            Some(Begun::Ended(reply)) => shard.answer_again(&facts, &reply),
            Some(Begun::Refused(status)) => shard.refuse(facts.handle, facts.request, status),
        }
    }
}

/// A call that waits for another one's answer.
struct Repeat {
    shard: Rc<Inner>,
    facts: Facts,
}

impl Work<KeptReply> for Repeat {
    fn shard(&self) -> &Rc<Inner> {
        &self.shard
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn ended(work: &mut Option<Repeat>, reply: KeptReply) {
        if let Some(Repeat { shard, facts }) = work {
            shard.answer_again(facts, &reply);
        }
    }
}

//! Who has been asked what, and what has become of it: what no node can know.

use ringcall_core::{FailureClass, Instant};

use crate::bodies::Plan;
use crate::net::LinkId;

/// Names a call over all nodes and lives: the nonce in its bodies.
pub(crate) type CallNo = u64;

/// What surrounds an item of either direction.
const ITEM_FRAME: usize = 2 * 48;

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) calls: Vec<Entry>,
    pub(crate) open: usize,
}

#[derive(Debug)]
pub(crate) struct Entry {
    /// The caller's node and life.
    pub(crate) caller: (usize, u32),
    pub(crate) callee: usize,
    pub(crate) len: usize,
    pub(crate) flags: u8,
    pub(crate) plan: Plan,
    /// On the caller's clock.
    pub(crate) deadline: Instant,
    /// How long it had, in microseconds.
    pub(crate) timeout_us: u64,
    pub(crate) link: LinkId,
    pub(crate) attempt: u8,
    is_open: bool,
    /// The caller has been told that these attempts did not run.
    did_not_run: u32,
    pub(crate) runs: u32,
    /// A one-way call was taken by a transport.
    pub(crate) was_sent: bool,
    /// Status and length of what the application answered.
    pub(crate) answer: Option<(u16, usize)>,
    /// Items sent and received: those of the caller, those of the answer.
    pub(crate) items: [Items; 2],
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Items {
    pub(crate) sent: u32,
    pub(crate) received: u32,
}

/// A call that is about to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    pub(crate) caller: (usize, u32),
    pub(crate) callee: usize,
    pub(crate) len: usize,
    pub(crate) flags: u8,
    pub(crate) plan: Plan,
    pub(crate) deadline: Instant,
    pub(crate) timeout_us: u64,
    pub(crate) link: LinkId,
}

impl Ledger {
    pub(crate) fn begin(&mut self, asking: Asking) -> CallNo {
        let Asking { caller, callee, len, flags, plan, deadline, timeout_us, link } = asking;
        self.open += 1;
        self.calls.push(Entry {
            caller,
            callee,
            len,
            flags,
            plan,
            deadline,
            timeout_us,
            link,
            attempt: 0,
            is_open: true,
            did_not_run: 0,
            runs: 0,
            was_sent: false,
            answer: None,
            items: Default::default(),
        });
        self.calls.len() as CallNo - 1
    }

    pub(crate) fn at(&mut self, call: CallNo) -> &mut Entry {
        &mut self.calls[call as usize]
    }

    /// A call is made again, under the same nonce: it did not run.
    pub(crate) fn again(&mut self, call: CallNo, deadline: Instant, link: LinkId) {
        let entry = &mut self.calls[call as usize];
        assert!(!entry.is_open, "call {call} is made again while it is open");
        entry.is_open = true;
        entry.attempt += 1;
        (entry.deadline, entry.link) = (deadline, link);
        self.open += 1;
    }

    /// Its ticket has come back.
    pub(crate) fn end(&mut self, call: CallNo, by: (usize, u32)) {
        let entry = &mut self.calls[call as usize];
        assert!(std::mem::take(&mut entry.is_open), "call {call} has ended twice");
        assert_eq!(entry.caller, by, "call {call} is somebody else's");
        self.open -= 1;
    }

    /// Its caller's life has ended without a word.
    pub(crate) fn orphan(&mut self, call: CallNo) {
        let entry = &mut self.calls[call as usize];
        if std::mem::take(&mut entry.is_open) {
            self.open -= 1;
        }
    }

    /// The caller has been told how far its failed call got.
    pub(crate) fn failed(&mut self, call: CallNo, class: FailureClass) {
        let entry = &mut self.calls[call as usize];
        if class != FailureClass::Unknown {
            assert_eq!(entry.runs, 0, "call {call} has run, but its caller is told {class:?}");
            entry.did_not_run |= 1 << entry.attempt;
        }
    }

    /// What calls that have not ended may still bring over the network.
    pub(crate) fn bytes_open(&self) -> u64 {
        let open = self.calls.iter().enumerate().filter(|(_, entry)| entry.is_open);
        open.map(|(call, entry)| {
            let item_len = |of_caller, nth| entry.plan.item_len(call as CallNo, of_caller, nth);
            let items = (0..u32::from(entry.plan.items))
                .map(|nth| item_len(true, nth) + item_len(false, nth) + ITEM_FRAME);
            items.sum::<usize>() as u64 + entry.len as u64 + u64::from(entry.plan.answer_len)
        })
        .sum()
    }

    /// A handler begins to work on a call.
    pub(crate) fn run(&mut self, call: CallNo, attempt: u8) {
        let entry = &mut self.calls[call as usize];
        assert!(
            entry.did_not_run >> attempt & 1 == 0,
            "call {call} runs after its caller was told that it does not"
        );
        entry.runs += 1;
        assert_eq!(entry.runs, 1, "call {call} has run twice");
    }
}

//! Who has been asked what, and what has become of it.

use std::collections::BTreeSet;

/// What a caller gets back with the end of its call: which one it was, counted over both sides.
pub(super) type Ticket = u64;

/// The calls of both sides. A call's number is its method, too, so that the other side knows which it has.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    calls: Vec<Entry>,
    open: BTreeSet<Ticket>,
}

#[derive(Debug)]
struct Entry {
    side: usize,
    len: usize,
    one_way: bool,
    was_run: bool,
    /// Status and length of what the application answered.
    answer: Option<(u16, usize)>,
    /// Items that the caller sent, and those that it was sent.
    items: [Items; 2],
}

/// The items of one direction.
#[derive(Debug, Default)]
struct Items {
    sent: Vec<usize>,
    received: usize,
}

impl Ledger {
    pub(super) fn begin(&mut self, side: usize, len: usize, one_way: bool) -> Ticket {
        let ticket = self.calls.len() as Ticket;
        self.calls.push(Entry {
            side,
            len,
            one_way,
            was_run: false,
            answer: None,
            items: Default::default(),
        });
        self.open.insert(ticket);
        ticket
    }

    /// A ticket has come back.
    pub(super) fn end(&mut self, side: usize, ticket: Ticket) {
        assert!(self.open.remove(&ticket), "call {ticket} has ended twice");
        assert_eq!(self.calls[ticket as usize].side, side, "call {ticket} is somebody else's");
    }

    /// A call of the other side has arrived, and it is what was sent.
    pub(super) fn run(&mut self, side: usize, ticket: Ticket, one_way: bool, body: &[u8]) {
        let entry = self.calls.get_mut(ticket as usize).expect("a call that nobody has made");
        assert_ne!(entry.side, side, "call {ticket} has come back to its caller");
        assert!(!entry.was_run, "call {ticket} has arrived twice");
        assert_eq!(entry.one_way, one_way, "call {ticket}");
        assert!(body == bytes(ticket, entry.len), "call {ticket} has another body");
        entry.was_run = true;
    }

    pub(super) fn answer(&mut self, ticket: Ticket, status: u16, len: usize) {
        if let Some(entry) = self.calls.get_mut(ticket as usize) {
            entry.answer = Some((status, len));
        }
    }

    /// The body of the next item of this length.
    pub(super) fn item(&self, side: usize, ticket: Ticket, len: usize) -> Vec<u8> {
        let direction = usize::from(self.calls[ticket as usize].side != side);
        let nth = self.calls[ticket as usize].items[direction].sent.len();
        item_bytes(ticket, direction, nth, len)
    }

    /// It was sent.
    pub(super) fn sent_item(&mut self, side: usize, ticket: Ticket, len: usize) {
        let direction = usize::from(self.calls[ticket as usize].side != side);
        self.calls[ticket as usize].items[direction].sent.push(len);
    }

    /// An item has arrived, and it is the next one that was sent.
    pub(super) fn got_item(&mut self, side: usize, ticket: Ticket, body: &[u8]) {
        let direction = usize::from(self.calls[ticket as usize].side == side);
        let items = &mut self.calls[ticket as usize].items[direction];
        let nth = items.received;
        assert_eq!(items.sent.get(nth), Some(&body.len()), "item {nth} of call {ticket}");
        assert!(body == item_bytes(ticket, direction, nth, body.len()), "call {ticket}");
        items.received += 1;
    }

    /// One direction of a call has ended well: all that was sent has arrived.
    pub(super) fn got_all(&self, side: usize, ticket: Ticket) {
        let direction = usize::from(self.calls[ticket as usize].side == side);
        let items = &self.calls[ticket as usize].items[direction];
        assert_eq!(items.received, items.sent.len(), "items of call {ticket} are missing");
    }

    /// A value or an error has arrived, and it is what was answered.
    pub(super) fn answered(&self, ticket: Ticket, status: u16, body: &[u8]) {
        let entry = &self.calls[ticket as usize];
        assert!(!entry.one_way, "one-way call {ticket} has an answer");
        assert_eq!(entry.answer, Some((status, body.len())), "the answer of call {ticket}");
        assert!(body == bytes(!ticket, body.len()), "call {ticket} got another's answer");
    }

    pub(super) fn is_one_way(&self, ticket: Ticket) -> bool {
        self.calls[ticket as usize].one_way
    }

    pub(super) fn assert_all_ended(&self) {
        assert!(self.open.is_empty(), "calls {:?} have not ended", self.open);
    }
}

fn item_bytes(ticket: Ticket, direction: usize, nth: usize, len: usize) -> Vec<u8> {
    bytes(ticket << 32 | (direction as u64) << 31 | nth as u64, len)
}

/// `len` bytes that say whose they are.
pub(super) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    let mut bytes = Vec::with_capacity(len + 16);
    for at in (0..len).step_by(16) {
        bytes.extend_from_slice(&word);
        bytes.extend_from_slice(&at.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "has ended twice")]
    fn an_end_that_comes_twice_is_noticed() {
        let mut ledger = Ledger::default();
        let ticket = ledger.begin(0, 0, false);
        ledger.end(0, ticket);
        ledger.end(0, ticket);
    }

    #[test]
    #[should_panic(expected = "have not ended")]
    fn an_end_that_never_comes_is_noticed() {
        let mut ledger = Ledger::default();
        ledger.begin(0, 0, false);
        ledger.assert_all_ended();
    }

    #[test]
    #[should_panic(expected = "got another's answer")]
    fn an_answer_that_goes_astray_is_noticed() {
        let mut ledger = Ledger::default();
        let (one, other) = (ledger.begin(0, 0, false), ledger.begin(0, 0, false));
        ledger.answer(one, 0, 8);
        ledger.answered(one, 0, &bytes(!other, 8));
    }
}

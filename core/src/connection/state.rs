//! The states of a connection and of its calls, each declared once, as a table.
//!
//! Every change of state in this module's siblings goes through `on`, so what the tables do not
//! allow cannot happen. `docs/STATES.md` shows them; a test keeps it equal.

/// Declares a state machine: its states, its inputs, and every transition there is.
macro_rules! machine {
    (
        $(#[$doc:meta])* $machine:ident by $input:ident;
        states { $($(#[$state_doc:meta])* $state:ident,)* }
        inputs { $($(#[$input_doc:meta])* $name:ident,)* }
        table { $($from:ident: $($on:ident => $to:ident),*;)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $machine { $($(#[$state_doc])* $state,)* }

        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $input { $($(#[$input_doc])* $name,)* }

        impl $machine {
            /// The state after `input`, or `None` if the table has no such transition.
            #[inline]
            pub(crate) const fn on(self, input: $input) -> Option<$machine> {
                match (self, input) {
                    $($(($machine::$from, $input::$on) => Some($machine::$to),)*)*
                    _ => None,
                }
            }

            /// The whole table, a line a transition.
            #[cfg(test)]
            pub(crate) fn table() -> alloc::string::String {
                use core::fmt::Write as _;
                let mut text = alloc::string::String::new();
                for from in [$($machine::$state,)*] {
                    for input in [$($input::$name,)*] {
                        if let Some(to) = from.on(input) {
                            let _ = writeln!(text, "| {from:?} | {input:?} | {to:?} |");
                        }
                    }
                }
                text
            }
        }
    };
}

machine! {
    /// A connection.
    ConnectionState by ConnectionInput;
    states {
        /// Waits for the other side's first eight bytes.
        Preface,
        /// Waits for the other side's HELLO.
        Hello,
        /// Takes and makes calls.
        Open,
        /// One side has said goodbye: what runs is finished, nothing new is begun.
        Draining,
        /// A last GOAWAY is on its way out; nothing is read any more.
        Closing,
        /// Over; what is left of its calls is being handed back.
        Closed,
    }
    inputs {
        /// The other side's preface is right.
        PrefaceRead,
        /// The other side's HELLO is acceptable.
        HelloRead,
        /// A GOAWAY was sent or received, or nothing more will be received.
        GoAway,
        /// A fault, or the application closes.
        Close,
        /// The transport's connection is gone, or the last GOAWAY has left.
        Gone,
    }
    table {
        Preface: PrefaceRead => Hello, Close => Closing, Gone => Closed;
        Hello: HelloRead => Open, Close => Closing, Gone => Closed;
        Open: GoAway => Draining, Close => Closing, Gone => Closed;
        Draining: GoAway => Draining, Close => Closing, Gone => Closed;
        Closing: Gone => Closed;
    }
}

impl ConnectionState {
    pub(super) const fn name(self) -> &'static str {
        match self {
            ConnectionState::Preface => "Preface",
            ConnectionState::Hello => "Hello",
            ConnectionState::Open => "Open",
            ConnectionState::Draining => "Draining",
            ConnectionState::Closing => "Closing",
            ConnectionState::Closed => "Closed",
        }
    }
}

machine! {
    /// A call that this side made.
    CallState by CallInput;
    states {
        /// The slot has no call.
        Free,
        /// Waits for credit; no byte is in the send order.
        Held,
        /// A part of its body is in the send order.
        Sending,
        /// All of it is in the send order.
        Waiting,
        /// The reply is a stream, and has begun.
        Streaming,
        /// A part of the reply, or of its end, has arrived.
        Receiving,
        /// The caller gave up; the slot waits for the terminal reply.
        Abandoned,
    }
    inputs {
        /// Its body must wait for credit.
        Hold,
        /// Its first frame is in the send order, more of its body follows.
        SendPart,
        /// Its last byte is in the send order.
        SendLast,
        /// A reply whose items follow.
        ItemsBegin,
        /// A reply, or end of one, whose body continues.
        ReplyBegins,
        /// The reply, or its end, is complete.
        ReplyEnds,
        /// The caller cancels, or the deadline passes.
        GiveUp,
        /// Ended without a reply: one-way and sent, or refused by GOAWAY, or the connection died.
        End,
    }
    table {
        Free: Hold => Held, SendPart => Sending, SendLast => Waiting;
        Held: SendPart => Sending, SendLast => Waiting, GiveUp => Free, End => Free;
        Sending: SendLast => Waiting, ReplyBegins => Receiving, ReplyEnds => Free, GiveUp => Abandoned, End => Free;
        Waiting: ItemsBegin => Streaming, ReplyBegins => Receiving, ReplyEnds => Free, GiveUp => Abandoned, End => Free;
        Streaming: ReplyBegins => Receiving, ReplyEnds => Free, GiveUp => Abandoned, End => Free;
        Receiving: ReplyEnds => Free, GiveUp => Abandoned, End => Free;
        Abandoned: ItemsBegin => Abandoned, ReplyBegins => Abandoned, ReplyEnds => Free, End => Free;
    }
}

machine! {
    /// A call that the other side made.
    ServedState by ServedInput;
    states {
        /// The slot has no call.
        Free,
        /// A part of the body has arrived.
        Receiving,
        /// Complete, but too many replies wait to be sent: the application gets it later.
        Parked,
        /// The application has it.
        Running,
        /// The application has it and has begun to answer with a stream.
        Streaming,
        /// The application has it and was told that nobody waits for it.
        Cancelling,
        /// A part of the reply is in the send order, or waits for credit.
        Replying,
        /// Answered before its whole body came: the rest is ignored.
        Discarding,
    }
    inputs {
        /// A request with its whole body.
        RequestWhole,
        /// A request whose body continues.
        RequestBegins,
        /// The last part of the body.
        BodyEnds,
        /// Too many replies wait.
        Park,
        /// No longer.
        Unpark,
        /// The caller gave up.
        Cancel,
        /// The answer is a stream, and its first frame is in the send order.
        ItemsBegin,
        /// The answer's last byte is in the send order, or there is no answer to send.
        ReplyLast,
        /// A part of the answer is in the send order, or it waits for credit.
        ReplyPart,
        /// Core refuses the call before its body is complete.
        RefuseEarly,
        /// The connection is over, and the application does not have it.
        End,
    }
    table {
        Free: RequestWhole => Running, RequestBegins => Receiving;
        Receiving: BodyEnds => Running, Cancel => Free, RefuseEarly => Discarding, End => Free;
        Parked: Unpark => Running, Cancel => Free, End => Free;
        Running: Park => Parked, Cancel => Cancelling, ItemsBegin => Streaming, ReplyLast => Free, ReplyPart => Replying;
        Streaming: Cancel => Cancelling, ReplyLast => Free, ReplyPart => Replying;
        Cancelling: Cancel => Cancelling, ReplyLast => Free, ReplyPart => Replying;
        Replying: Cancel => Replying, ReplyPart => Replying, ReplyLast => Free, End => Free;
        Discarding: BodyEnds => Free, Cancel => Free, End => Free, RequestWhole => Running, RequestBegins => Receiving;
    }
}

machine! {
    /// The items of a call that this side sends.
    OutputState by OutputInput;
    states {
        /// The answer that they belong to has not begun.
        Idle,
        /// An item may be sent.
        Open,
        /// An item, or the request in front of it, is not in the send order whole.
        Busy,
        /// The same, and the end waits behind it.
        Ending,
        /// Nothing follows.
        Ended,
    }
    inputs {
        /// The answer's first frame is in the send order.
        Begin,
        /// An item that is sent in parts, or waits for credit.
        PartBegins,
        /// Its last byte is in the send order.
        PartEnds,
        /// The application has no further item.
        End,
        /// The call is over, or nobody wants its items.
        Stop,
    }
    table {
        Idle: Begin => Open, End => Ended, Stop => Ended;
        Open: PartBegins => Busy, End => Ended, Stop => Ended;
        Busy: PartEnds => Open, End => Ending, Stop => Ended;
        Ending: PartEnds => Ended, Stop => Ended;
    }
}

machine! {
    /// The items of a call that this side receives.
    InputState by InputInput;
    states {
        /// The answer that they belong to has not begun.
        Idle,
        /// An item may come.
        Open,
        /// Nothing follows.
        Ended,
    }
    inputs {
        /// The answer's first frame.
        Begin,
        /// The other side's END.
        End,
    }
    table {
        Idle: Begin => Open;
        Open: End => Ended;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn the_tables_are_the_documented_ones() {
        let documented = include_str!("../../../docs/STATES.md");
        for (name, table) in [
            ("A connection", ConnectionState::table()),
            ("A call made", CallState::table()),
            ("A call served", ServedState::table()),
            ("Items sent", OutputState::table()),
            ("Items received", InputState::table()),
        ] {
            let section =
                format!("## {name}\n\n| state | input | next state |\n|---|---|---|\n{table}");
            assert!(documented.contains(&section), "docs/STATES.md lacks:\n{section}");
        }
    }
}

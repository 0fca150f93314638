//! What a connection has done, counted.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the connection opened. Sums over connections by [`add`](Counters::add).
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Adds another connection's counts.
            pub fn add(&mut self, other: &Counters) {
                $(self.$name = self.$name.wrapping_add(other.$name);)*
            }

            /// Every count with its name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Calls made, one-way ones included.
    calls_made,
    /// Calls made that have ended.
    calls_ended,
    /// Requests taken from the other side, one-way ones included.
    requests_taken,
    /// Requests answered.
    requests_answered,
    /// Requests answered by core itself with a refusal.
    requests_refused,
    /// Those of them that were refused because memory was short, or the landing budget used up for too long.
    requests_short_of_memory,
    /// Requests that had expired before their handler could start: when they arrived, or in a queue. Their
    /// bodies were not looked at.
    requests_expired,
    /// Requests that the other side cancelled.
    requests_cancelled,
    /// Calls that expired here, also before they were made: those are not among `calls_made`.
    calls_expired,
    /// Calls cancelled here.
    calls_cancelled,
    /// Items of streams sent.
    items_sent,
    /// Items of streams received, and wanted.
    items_received,
    /// Bodies sent in a codec with names, because the other side was built with other types, or without.
    fallback_encoded,
    /// Bodies received in such a codec.
    fallback_decoded,
    /// Frames received, of any kind.
    frames_received,
    /// Bytes received.
    bytes_received,
    /// Bytes that the transport has sent.
    bytes_sent,
    /// Replies to calls that do not exist, or no longer.
    replies_unknown,
    /// Replies to calls that were cancelled or had expired.
    replies_late,
    /// PINGs that came too soon after others.
    ping_strikes,
    /// Requests dropped because they came after our GOAWAY.
    requests_after_goaway,
    /// Bytes of frames and bodies that were ignored.
    bytes_ignored,
    /// Body bytes copied because the body did not arrive in one piece.
    copied_straddle,
    /// Body bytes copied because they did not arrive at a multiple of 16.
    copied_misaligned,
    /// Body bytes copied because too much receive memory is held.
    copied_hoard,
    /// Body bytes copied because they lie in a file, and the transport or its layer sends from memory only.
    copied_file,
    /// Bytes that TLS copied on their way in, beside decrypting them: from where they were received, and
    /// within, to lie as bodies must.
    copied_tls,
    /// Body bytes received straight into their own buffer.
    landed,
    /// Body bytes that went from where they were received to a file.
    landed_in_files,
    /// Body bytes that the transport was given as ranges of files.
    sent_from_files,
    /// Bodies that ended early because their file could not be read.
    bodies_unreadable,
}

impl Counters {
    /// All bytes of bodies, and with TLS of what lies around them, that were copied on their way between the
    /// transport and the application.
    #[must_use]
    pub fn copied_bytes(&self) -> u64 {
        self.copied_straddle
            + self.copied_misaligned
            + self.copied_hoard
            + self.copied_file
            + self.copied_tls
    }
}

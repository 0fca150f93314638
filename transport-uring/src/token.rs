//! What an operation is called: its kind, and whose it is.

use ringcall_core::Handle;

/// The name of an operation, which its completions carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// A listener's accept.
    Accept {
        /// Whose.
        listener: u32,
        /// Tells the listeners with this number apart.
        generation: u32,
    },
    /// A connection being established.
    Connect(Handle),
    /// A connection's receive.
    Receive(Handle),
    /// A connection's send.
    Send(Handle),
    /// A write to a file, by its own index and generation.
    Write(Handle),
    /// The doorbell.
    Bell,
    /// Nobody's: the cancel of another operation.
    Cancel,
}

const GENERATION_BITS: u32 = 28;
const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;

impl Token {
    /// As 64 bits: kind (4), generation (28), index (32).
    #[must_use]
    pub fn pack(self) -> u64 {
        let (kind, index, generation) = match self {
            Token::Cancel => (0, 0, 0),
            Token::Accept { listener, generation } => (1, listener, generation),
            Token::Connect(handle) => (2, handle.index, handle.generation),
            Token::Receive(handle) => (3, handle.index, handle.generation),
            Token::Send(handle) => (4, handle.index, handle.generation),
            Token::Bell => (5, 0, 0),
            Token::Write(handle) => (6, handle.index, handle.generation),
        };
        let high = (kind << GENERATION_BITS) | (generation & GENERATION_MASK);
        u64::from(high) << 32 | u64::from(index)
    }

    /// From 64 bits; `None` for what [`pack`](Token::pack) never makes.
    #[must_use]
    pub fn unpack(bits: u64) -> Option<Token> {
        let (high, index) = ((bits >> 32) as u32, bits as u32);
        let handle = Handle { index, generation: high & GENERATION_MASK };
        Some(match high >> GENERATION_BITS {
            0 => Token::Cancel,
            1 => Token::Accept { listener: index, generation: handle.generation },
            2 => Token::Connect(handle),
            3 => Token::Receive(handle),
            4 => Token::Send(handle),
            5 => Token::Bell,
            6 => Token::Write(handle),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn tokens_survive_packing(index: u32, generation in 0..1u32 << GENERATION_BITS) {
            let handle = Handle { index, generation };
            let tokens = [
                Token::Accept { listener: index, generation },
                Token::Connect(handle),
                Token::Receive(handle),
                Token::Send(handle),
                Token::Bell,
                Token::Cancel,
            ];
            for token in tokens {
                assert_eq!(Token::unpack(token.pack()), Some(token));
            }
        }

        #[test]
        fn any_bits_unpack_to_something_or_nothing(bits: u64) {
            let _ = Token::unpack(bits);
        }
    }
}

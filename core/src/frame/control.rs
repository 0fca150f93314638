//! Headers of frames without a body: CREDIT, CANCEL, PING, PONG, GOAWAY, LIMITS.

use super::{Fields, fixed};
use crate::CloseCode;

/// The header of a CREDIT frame: the other side may send `amount` more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// How much more; never zero.
    pub amount: u64,
    /// Of what.
    pub pool: CreditPool,
    /// Counted how.
    pub unit: CreditUnit,
}

/// What credit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CreditPool {
    /// The stream of the call that the frame names.
    Call = 0,
    /// The requests, with their items, that the other side sends.
    Calls = 1,
    /// The replies, with their items, that the other side sends.
    Replies = 2,
}

/// How credit is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CreditUnit {
    /// Body bytes.
    Bytes = 0,
    /// Items of a stream.
    Items = 1,
    /// Requests.
    Requests = 2,
}

impl Credit {
    /// The length of the fixed part.
    pub const LEN: usize = 16;

    /// Reads the fixed part; what follows it are TLVs. `None` also for an unknown pool or unit.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<(Credit, &[u8])> {
        let (mut fields, rest) = fixed::<{ Credit::LEN }>(header)?;
        let amount = fields.u64();
        let pool = match fields.u8() {
            0 => CreditPool::Call,
            1 => CreditPool::Calls,
            2 => CreditPool::Replies,
            _ => return None,
        };
        let unit = match fields.u8() {
            0 => CreditUnit::Bytes,
            1 => CreditUnit::Items,
            2 => CreditUnit::Requests,
            _ => return None,
        };

        Some((Credit { amount, pool, unit }, rest))
    }

    /// The fixed part's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Credit::LEN] {
        Fields::new()
            .put(self.amount.to_le_bytes())
            .put([self.pool as u8, self.unit as u8])
            .finish()
    }
}

/// The header of a CANCEL frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancel {
    /// Why the caller gave up.
    pub reason: CancelReason,
}

/// Why a caller gave up a call. Numbers that v1 does not know read as [`Dropped`](Self::Dropped).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CancelReason {
    /// The application does not want the reply any more.
    Dropped = 0,
    /// Its deadline passed.
    Expired = 1,
    /// Another attempt of the same call was faster.
    Superseded = 2,
}

impl Cancel {
    /// The length of the fixed part.
    pub const LEN: usize = 16;

    /// Reads the fixed part; what follows it are TLVs.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<(Cancel, &[u8])> {
        let (mut fields, rest) = fixed::<{ Cancel::LEN }>(header)?;
        let reason = match fields.u8() {
            1 => CancelReason::Expired,
            2 => CancelReason::Superseded,
            _ => CancelReason::Dropped,
        };

        Some((Cancel { reason }, rest))
    }

    /// The fixed part's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Cancel::LEN] {
        Fields::new().put([self.reason as u8]).finish()
    }
}

/// The header of a PING or a PONG frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Comes back in the PONG as it is.
    pub opaque: [u8; 16],
}

impl Ping {
    /// The length of the fixed part.
    pub const LEN: usize = 16;

    /// Reads the fixed part; what follows it are TLVs.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<(Ping, &[u8])> {
        let (mut fields, rest) = fixed::<{ Ping::LEN }>(header)?;
        let opaque = fields.take();
        Some((Ping { opaque }, rest))
    }

    /// The fixed part's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Ping::LEN] {
        self.opaque
    }
}

/// The header of a GOAWAY frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoAway {
    /// How many REQUEST frames its sender has taken since the connection opened: those are or will be
    /// answered, later ones were not run. [`GoAway::SOON`] says only "stop soon".
    pub accepted: u64,
    /// Why.
    pub code: CloseCode,
}

impl GoAway {
    /// The length of the fixed part.
    pub const LEN: usize = 16;
    /// As `accepted`: nothing is refused yet, but send no further calls.
    pub const SOON: u64 = u64::MAX;

    /// Reads the fixed part; what follows it are TLVs.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<(GoAway, &[u8])> {
        let (mut fields, rest) = fixed::<{ GoAway::LEN }>(header)?;
        let accepted = fields.u64();
        let code = CloseCode(fields.u16());

        Some((GoAway { accepted, code }, rest))
    }

    /// The fixed part's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; GoAway::LEN] {
        Fields::new().put(self.accepted.to_le_bytes()).put(self.code.0.to_le_bytes()).finish()
    }
}

/// The header of a LIMITS frame: replaces those of HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`Hello::in_flight_max`](super::Hello::in_flight_max).
    pub in_flight_max: u32,
    /// See [`Hello::message_bytes_max`](super::Hello::message_bytes_max).
    pub message_bytes_max: u64,
}

impl Limits {
    /// The length of the fixed part.
    pub const LEN: usize = 16;

    /// Reads the fixed part; what follows it are TLVs.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<(Limits, &[u8])> {
        let (mut fields, rest) = fixed::<{ Limits::LEN }>(header)?;
        let in_flight_max = fields.u32();
        let _reserved = fields.u32();
        let message_bytes_max = fields.u64();
        Some((Limits { in_flight_max, message_bytes_max }, rest))
    }

    /// The fixed part's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Limits::LEN] {
        Fields::new()
            .put(self.in_flight_max.to_le_bytes())
            .put([0; 4])
            .put(self.message_bytes_max.to_le_bytes())
            .finish()
    }
}

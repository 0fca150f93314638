//! HELLO: what one side is and accepts.

use super::{Fields, fixed};

/// Bits of [`Hello::features`].
pub mod features {
    /// Calls may be sent before the other side's HELLO has arrived. Reserved, not built.
    pub const EARLY_CALLS: u64 = 1 << 0;
    /// Calls with streams of items.
    pub const STREAMS: u64 = 1 << 1;
    /// Frames may carry a CRC32C. Reserved, not built.
    pub const CHECKSUMS: u64 = 1 << 2;
    /// The control methods of `ringcall.*` are served.
    pub const CONTROL_METHODS: u64 = 1 << 3;
}

/// The fixed part of a HELLO frame. Credentials and extensions follow as TLVs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The lowest major version of the format that this side speaks.
    pub version_min: u8,
    /// The highest one.
    pub version_max: u8,
    /// How its rkyv archives are laid out.
    pub archive: ArchiveFormat,
    /// Bit `n`: reads bodies that are compressed with algorithm `n`; bit 0 means nothing.
    pub compressions: u8,
    /// How many calls the other side may have in flight: their slots are below this number.
    pub in_flight_max: u32,
    /// See [`features`]; the intersection of both sides' is in force.
    pub features: u64,
    /// Bit `n`: reads and writes the codec with id `n`.
    pub codecs: u64,
    /// The largest body it accepts, in bytes.
    pub message_bytes_max: u64,
    /// How many body bytes the other side may send with its calls before it gets credit.
    pub calls_window: u64,
    /// How many body bytes the other side may send as replies before it gets credit.
    pub replies_window: u64,
    /// How many body bytes of one stream the other side may send before it gets credit.
    pub stream_window: u64,
    /// A digest of the methods it serves and their signatures; zero if it serves none or does not say.
    pub table_digest: u64,
    /// Who it is, so that an address reused by another process is noticed.
    pub instance: InstanceId,
}

/// The identity of a process: random at its start, or given by its operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct InstanceId(pub [u8; 16]);

/// The global layout options of rkyv that any dependency of a program may flip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ArchiveFormat(pub u8);

impl ArchiveFormat {
    /// Little endian, 32-bit relative pointers, aligned: rkyv's default.
    pub const STANDARD: ArchiveFormat = ArchiveFormat::new(false, 32, true);

    /// The byte for these options; widths other than 16 and 64 count as 32.
    #[must_use]
    pub const fn new(big_endian: bool, pointer_width: u8, aligned: bool) -> ArchiveFormat {
        let width = match pointer_width {
            16 => 0,
            64 => 2,
            _ => 1,
        };
        ArchiveFormat(big_endian as u8 | width << 1 | (!aligned as u8) << 3)
    }
}

impl Hello {
    /// The length of the fixed part.
    pub const LEN: usize = 80;

    /// Reads the fixed part; what follows it are TLVs.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<(Hello, &[u8])> {
        let (mut fields, rest) = fixed::<{ Hello::LEN }>(header)?;
        let version_min = fields.u8();
        let version_max = fields.u8();
        let archive = ArchiveFormat(fields.u8());
        let compressions = fields.u8();
        let hello = Hello {
            version_min,
            version_max,
            archive,
            compressions,
            in_flight_max: fields.u32(),
            features: fields.u64(),
            codecs: fields.u64(),
            message_bytes_max: fields.u64(),
            calls_window: fields.u64(),
            replies_window: fields.u64(),
            stream_window: fields.u64(),
            table_digest: fields.u64(),
            instance: InstanceId(fields.take()),
        };
        Some((hello, rest))
    }

    /// The fixed part's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Hello::LEN] {
        Fields::new()
            .put([self.version_min, self.version_max, self.archive.0, self.compressions])
            .put(self.in_flight_max.to_le_bytes())
            .put(self.features.to_le_bytes())
            .put(self.codecs.to_le_bytes())
            .put(self.message_bytes_max.to_le_bytes())
            .put(self.calls_window.to_le_bytes())
            .put(self.replies_window.to_le_bytes())
            .put(self.stream_window.to_le_bytes())
            .put(self.table_digest.to_le_bytes())
            .put(self.instance.0)
            .finish()
    }
}

//! Sizes and versions both sides agree on.

/// Oldest protocol version this code speaks. Agents of version 1 are refused: their greeting
/// changed while that version was in use.
pub const VERSION_MIN: u16 = 2;
/// Newest protocol version this code speaks.
pub const VERSION_MAX: u16 = 2;

/// Largest encoded message in bytes, before checksum and framing. Bounds what an environment or
/// argument list may hold; a quarter of the kernel's own limit for both together (2 MiB with the
/// usual 8 MiB stack).
pub const MAX_MESSAGE: usize = 512 * 1024;

/// Length of the checksum behind each message.
pub(crate) const CHECKSUM: usize = 4;

/// Largest frame in bytes without its delimiter. COBS adds one byte for each 254 begun, and one.
pub const MAX_FRAME: usize = MAX_MESSAGE + CHECKSUM + (MAX_MESSAGE + CHECKSUM) / 254 + 2;

/// Largest payload of one data message in bytes. The web socket side sends chunks of this size as
/// well.
pub const MAX_CHUNK: usize = 32 * 1024;

/// Credit each direction of a session begins with, in bytes. At a round trip of 0.3 ms it allows
/// several hundred MB/s.
pub const STREAM_WINDOW: u32 = 256 * 1024;

/// Cost of a message on top of its payload, so that a flood of tiny messages is bounded as well.
pub const DATA_OVERHEAD: u32 = 64;

/// Sessions (commands, uploads, downloads) one connection may have open at a time.
pub const MAX_SESSIONS: usize = 64;

/// Fewest bytes of entropy that [`crate::Identity`] and [`crate::StartSpec`] may carry: one full
/// seed of the kernel's generator.
pub const MIN_ENTROPY: usize = 32;

const _: () = assert!(MAX_CHUNK + 64 < MAX_MESSAGE);
// A receiver reports credit when a quarter of the window is used up; the largest message must fit
// into what is left.
const _: () = assert!(MAX_CHUNK as u32 + DATA_OVERHEAD < STREAM_WINDOW / 2);

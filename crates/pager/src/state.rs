//! What must survive a pager: which pages a machine has given back, and messages that were read but not yet acted on.
//!
//! It lies in a memfd that the supervisor keeps. The kernel forgets a message once it is read; so messages are read
//! straight into this memory, and a pager that is killed between reading and acting leaves them to the next one.
//! Losing a removal would show old bytes of the image where the guest must find zeros.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use memory::Run;
use rustix::fs::{MemfdFlags, SealFlags};

use crate::bitmap::{Bitmap, words_for};
use crate::sys::{MESSAGE_WORDS, Message, SharedWords};

/// Messages read at once. More vCPUs than this only wait for the next read.
pub(crate) const SLOTS: usize = 32;

/// First word: marks the layout that this program knows.
const MAGIC: u64 = u64::from_le_bytes(*b"copuffd1");
const HEADER_WORDS: usize = 64;
/// Bitmaps begin on a page of their own; header and slots fit the page before.
const BITMAPS_AT: usize = 512;

const _: () = assert!(HEADER_WORDS + SLOTS * MESSAGE_WORDS <= BITMAPS_AT);

/// The state of one machine, mapped.
#[derive(Debug)]
pub(crate) struct State {
    words: SharedWords,
    pages: u64,
}

/// Makes the state of a machine with `pages` pages of RAM.
pub(crate) fn create(pages: u64) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("coppice-pager-state", flags)?;
    rustix::fs::ftruncate(&fd, length(pages) as u64 * 8)?;
    rustix::fs::fcntl_add_seals(&fd, seals())?;
    let words = SharedWords::map(&fd, BITMAPS_AT)?;
    words.words()[1].store(pages, Ordering::Release);
    words.words()[0].store(MAGIC, Ordering::Release);
    Ok(fd)
}

fn length(pages: u64) -> usize {
    BITMAPS_AT + 2 * words_for(pages)
}

fn seals() -> SealFlags {
    SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW
}

impl State {
    /// Maps a state that was made for as many pages. Sizes are checked, for an access beyond the end is fatal.
    pub(crate) fn open(fd: &OwnedFd, pages: u64) -> io::Result<Self> {
        let invalid = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        let size = u64::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or(0);
        if size != length(pages) as u64 * 8 || !rustix::fs::fcntl_get_seals(fd)?.contains(seals()) {
            return invalid("the page state has the wrong size or can be cut");
        }
        let words = SharedWords::map(fd, length(pages))?;
        let head = words.words();
        if head[0].load(Ordering::Acquire) != MAGIC || head[1].load(Ordering::Acquire) != pages {
            return invalid("the page state is of another kind or machine");
        }
        // Without it the kernel would have to fault while it hands over a message. It does that well too, unless
        // the process is being killed at that moment and the page was swapped out.
        if let Err(error) = words.lock(BITMAPS_AT * 8) {
            tracing::debug!(%error, "the page state is not locked in memory");
        }
        Ok(Self { words, pages })
    }

    /// Pages that are in the machine's memory already. Advice for those around a fault; a fault is always believed.
    pub(crate) fn present(&self) -> Bitmap<'_> {
        let start = BITMAPS_AT;
        Bitmap::new(&self.words.words()[start..start + words_for(self.pages)])
    }

    /// Pages that were given back: zero, whatever the image has.
    pub(crate) fn removed(&self) -> Bitmap<'_> {
        let start = BITMAPS_AT + words_for(self.pages);
        Bitmap::new(&self.words.words()[start..start + words_for(self.pages)])
    }

    pub(crate) fn slots(&self) -> &[[AtomicU64; MESSAGE_WORDS]] {
        let words = &self.words.words()[HEADER_WORDS..HEADER_WORDS + SLOTS * MESSAGE_WORDS];
        words.as_chunks::<MESSAGE_WORDS>().0
    }

    /// The messages in the slots, in the order in which they were read.
    pub(crate) fn messages(&self) -> Vec<Message> {
        let decode = |slot: &[AtomicU64; MESSAGE_WORDS]| {
            Message::decode(slot.each_ref().map(|word| word.load(Ordering::Acquire)))
        };
        self.slots().iter().map_while(decode).collect()
    }

    /// Forgets the messages, all of which have been acted on. The last goes first: whoever dies in between leaves
    /// some of the first, and acting on them once more changes nothing.
    pub(crate) fn clear_messages(&self, count: usize) {
        for slot in self.slots()[..count.min(SLOTS)].iter().rev() {
            slot[0].store(0, Ordering::Release);
        }
    }

    /// Notes that `run` was given back.
    pub(crate) fn remove(&self, run: Run) {
        // In this order: a page that is in neither set would be filled from the image.
        self.removed().set(run);
        self.present().clear(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_mapping_sees_what_one_has_noted() {
        let fd = create(1000).unwrap();
        let first = State::open(&fd, 1000).unwrap();
        let second = State::open(&fd, 1000).unwrap();
        first.present().set(Run { first: 0, count: 9 });
        first.remove(Run { first: 8, count: 3 });
        assert!(second.present().get(7) && !second.present().get(8));
        assert!(second.removed().get(8) && second.removed().get(10) && !second.removed().get(7));
        // A removal that was read, by a pager that dies before it acts.
        for (word, value) in second.slots()[0].iter().zip([0x15, 4096, 8192, 0]) {
            word.store(value, Ordering::Release);
        }
        let wanted = Message::Removed {
            start: 4096,
            end: 8192,
        };
        assert_eq!(first.messages(), [wanted]);
        first.clear_messages(1);
        assert_eq!(second.messages(), []);
    }

    #[test]
    fn state_of_another_machine_is_refused() {
        let fd = create(1000).unwrap();
        assert!(State::open(&fd, 2000).is_err());
        let unsealed = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&unsealed, length(1000) as u64 * 8).unwrap();
        assert!(State::open(&unsealed, 1000).is_err());
    }
}

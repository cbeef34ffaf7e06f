//! Chunks that were read and checked, as many as fit.

/// A chunk of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkId {
    pub(super) layer: usize,
    pub(super) chunk: usize,
}

#[derive(Debug)]
struct Slot {
    id: ChunkId,
    used_at: u64,
    bytes: Vec<u8>,
}

/// A cache that drops what was not used for longest. A few hundred slots at most, so looking at each is fast.
#[derive(Debug)]
pub(super) struct ChunkCache {
    slots: Vec<Slot>,
    capacity_bytes: usize,
    held_bytes: usize,
    uses: u64,
}

impl ChunkCache {
    /// A cache for `capacity_bytes`, but always for one chunk.
    pub(super) fn new(capacity_bytes: usize) -> Self {
        Self {
            slots: Vec::new(),
            capacity_bytes,
            held_bytes: 0,
            uses: 0,
        }
    }

    /// The chunk, made by `fill` in a buffer of `len` bytes if it is not there. A failed one is not kept.
    pub(super) fn get<E>(
        &mut self,
        id: ChunkId,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<&[u8], E> {
        self.uses += 1;
        let nth = match self.slots.iter().position(|slot| slot.id == id) {
            Some(nth) => nth,
            None => {
                let mut bytes = self.room_for(len);
                bytes.resize(len, 0);
                fill(&mut bytes)?;
                self.held_bytes += len;
                self.slots.push(Slot {
                    id,
                    used_at: 0,
                    bytes,
                });
                self.slots.len() - 1
            }
        };
        let slot = &mut self.slots[nth];
        slot.used_at = self.uses;
        Ok(&slot.bytes)
    }

    /// Drops chunks until `len` more bytes fit, and gives the memory of the last one for use again.
    fn room_for(&mut self, len: usize) -> Vec<u8> {
        let mut spare = Vec::new();
        while self.held_bytes + len > self.capacity_bytes {
            let oldest = self
                .slots
                .iter()
                .enumerate()
                .min_by_key(|(_, slot)| slot.used_at);
            let Some((nth, _)) = oldest else {
                break;
            };
            spare = self.slots.swap_remove(nth).bytes;
            self.held_bytes -= spare.len();
        }
        spare
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_was_used_last_within_its_size() {
        let mut cache = ChunkCache::new(300);
        let mut read = |chunk: usize| {
            let mut filled = false;
            let id = ChunkId { layer: 0, chunk };
            let bytes = cache.get(id, 100, |buffer| {
                filled = true;
                buffer.fill(chunk as u8);
                Ok::<_, ()>(())
            });
            assert_eq!(bytes, Ok(&[chunk as u8; 100][..]));
            filled
        };
        assert_eq!([1, 2, 3, 1].map(&mut read), [true, true, true, false]);
        assert_eq!([4, 1, 3, 2].map(&mut read), [true, false, false, true]);
    }

    #[test]
    fn a_chunk_that_failed_is_tried_again() {
        let mut cache = ChunkCache::new(0);
        let id = ChunkId { layer: 1, chunk: 7 };
        assert_eq!(cache.get(id, 10, |_| Err("bad")), Err("bad"));
        assert_eq!(
            cache.get(id, 10, |_| Ok::<_, &str>(())).map(<[u8]>::len),
            Ok(10)
        );
    }
}

//! Netlink attributes for the parts of the kernel that no crate encodes.

/// `NLA_F_NESTED`: the attribute holds attributes.
const NESTED: u16 = 1 << 15;
/// Bits of the type field that are no type.
const TYPE_FLAGS: u16 = 0xc000;
/// Length of an attribute's header.
const HEADER: usize = 4;

/// Attributes one after the other.
#[derive(Debug, Default, Clone)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    /// None yet, after a fixed header.
    pub(super) fn after(header: &[u8]) -> Self {
        Self(header.to_vec())
    }

    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds raw bytes.
    pub(super) fn put(mut self, kind: u16, value: &[u8]) -> Self {
        self.push(kind, value);
        self
    }

    /// Adds a number in network order, as netfilter wants them.
    pub(super) fn be32(self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Adds a string with its final zero.
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    /// Adds an attribute that holds others.
    pub(super) fn nest(self, kind: u16, inner: &Self) -> Self {
        self.put(kind | NESTED, &inner.0)
    }

    fn push(&mut self, kind: u16, value: &[u8]) {
        // Longer values than 64 KiB are never made: lists are split before.
        let length = u16::try_from(HEADER + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// Reads attributes, without the flags in their types. What is cut off ends the list.
pub(super) fn read(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (head, _) = rest.split_at_checked(HEADER)?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & !TYPE_FLAGS;
        let value = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a type.
pub(super) fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    read(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Attributes::default().text(1, "abc").be32(2, 7);
        let list = Attributes::default().put(3, &[1]).nest(4, &inner);
        let nested = find(list.bytes(), 4).unwrap();
        assert_eq!(find(list.bytes(), 3), Some(&[1][..]));
        assert_eq!(find(nested, 1), Some(&b"abc\0"[..]));
        assert_eq!(find(nested, 2), Some(&7_u32.to_be_bytes()[..]));
        assert_eq!(find(nested, 5), None);
    }

    #[test]
    fn damaged_lists_end() {
        for bytes in [
            &[0_u8, 0, 0, 0][..],
            &[3, 0, 1, 0],
            &[200, 0, 1, 0, 9],
            &[1],
        ] {
            assert_eq!(read(bytes).count(), 0, "{bytes:?}");
        }
    }
}

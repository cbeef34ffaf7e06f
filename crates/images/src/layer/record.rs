//! Tar entries with their extensions put together.
//!
//! The tar crate would do this, too, but reads extension headers of any size into memory and cuts
//! attribute values at newlines, so only its plain headers are used.

use std::io::Read;

use tar::{Entry, EntryType, Header};

use crate::Refusal;

/// Bytes of an extension header: room for a long path and several extended attributes.
const MOST_EXTENSION_BYTES: u64 = 1 << 20;

/// An entry of a layer, not yet judged.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since the epoch.
    pub mtime: i64,
    pub size: u64,
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Extension headers seen since the last ordinary entry.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<i64>,
    size: Option<u64>,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why an entry could not be read.
#[derive(Debug)]
pub(super) enum RecordProblem {
    Refused(Refusal),
    Stream(std::io::Error),
}

impl From<Refusal> for RecordProblem {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Extensions {
    /// Takes an entry in if it is an extension header. Says whether it was one.
    pub(super) fn absorb(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
    ) -> Result<bool, RecordProblem> {
        match entry.header().entry_type() {
            EntryType::GNULongName => self.name = Some(text(read_body(entry)?)),
            EntryType::GNULongLink => self.link = Some(text(read_body(entry)?)),
            EntryType::XHeader => self.absorb_pax(&read_body(entry)?)?,
            // Global headers carry comments of git; what they could set, no image builder sets.
            EntryType::XGlobalHeader => drop(read_body(entry)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The entry that the extensions were for.
    pub(super) fn complete(self, header: &Header) -> Result<Record, Refusal> {
        let size = header
            .entry_size()
            .map_err(|_| Refusal::BadNumber("size"))?;
        if self.size.is_some_and(|extended| extended != size) {
            // A file of 8 GiB or more; the reader goes by the plain header.
            return Err(Refusal::BadNumber("size"));
        }
        let number = |value: std::io::Result<u64>, what| {
            value
                .ok()
                .and_then(|v| u32::try_from(v).ok())
                .ok_or(Refusal::BadNumber(what))
        };
        let uid = self.uid.map_or_else(|| number(header.uid(), "uid"), Ok)?;
        let gid = self.gid.map_or_else(|| number(header.gid(), "gid"), Ok)?;
        // To the system, the highest number means "leave it as it is".
        if [uid, gid].contains(&u32::MAX) {
            return Err(Refusal::BadNumber("owner"));
        }
        let mtime = header
            .mtime()
            .ok()
            .and_then(|mtime| i64::try_from(mtime).ok())
            .unwrap_or(0);
        let link = header.link_name_bytes().unwrap_or_default().into_owned();
        Ok(Record {
            name: self
                .name
                .unwrap_or_else(|| header.path_bytes().into_owned()),
            link: self.link.unwrap_or(link),
            mode: header.mode().map_err(|_| Refusal::BadNumber("mode"))? & 0o7777,
            uid,
            gid,
            mtime: self.mtime.unwrap_or(mtime),
            size,
            attributes: self.attributes,
        })
    }

    fn absorb_pax(&mut self, body: &[u8]) -> Result<(), Refusal> {
        let mut rest = body;
        while !rest.is_empty() {
            let (key, value, after) = pax_record(rest).ok_or(Refusal::BadExtension)?;
            rest = after;
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"uid" => self.uid = Some(decimal(value, "uid")?),
                b"gid" => self.gid = Some(decimal(value, "gid")?),
                b"size" => self.size = Some(decimal(value, "size")?),
                b"mtime" => {
                    let seconds = value.split(|&byte| byte == b'.').next().unwrap_or_default();
                    self.mtime = Some(decimal(seconds, "mtime")?);
                }
                _ if key.starts_with(b"GNU.sparse.") => return Err(Refusal::Sparse),
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.attributes.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Takes the first `<length> <key>=<value>\n` off; the length counts everything in the record.
fn pax_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &bytes[length..]))
}

fn decimal<T: std::str::FromStr>(digits: &[u8], what: &'static str) -> Result<T, Refusal> {
    let text = std::str::from_utf8(digits).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or(Refusal::BadNumber(what))
}

fn read_body(entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>, RecordProblem> {
    let mut body = Vec::new();
    let mut limited = entry.take(MOST_EXTENSION_BYTES + 1);
    limited
        .read_to_end(&mut body)
        .map_err(RecordProblem::Stream)?;
    if body.len() as u64 > MOST_EXTENSION_BYTES {
        return Err(Refusal::BadExtension.into());
    }
    Ok(body)
}

/// Long names end with a zero byte.
fn text(mut body: Vec<u8>) -> Vec<u8> {
    if body.last() == Some(&0) {
        body.pop();
    }
    body
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A record with its length put before it.
    fn pax(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let digits = |length: usize| length.to_string().len();
        let mut length = rest.len() + 1;
        while length != rest.len() + digits(length) {
            length = rest.len() + digits(length);
        }
        [length.to_string().as_bytes(), &rest].concat()
    }

    #[test]
    fn pax_records_may_hold_any_bytes() {
        let path = pax("path", b"a\nb");
        let attribute = pax("SCHILY.xattr.user.x", b"\0\n\xff=1");
        let mut extensions = Extensions::default();
        extensions.absorb_pax(&[path, attribute].concat()).unwrap();
        assert_eq!(extensions.name.as_deref(), Some(b"a\nb".as_slice()));
        assert_eq!(
            extensions.attributes,
            [(b"user.x".to_vec(), b"\0\n\xff=1".to_vec())]
        );
    }

    #[test]
    fn broken_and_sparse_records_are_refused() {
        for (body, reason) in [
            (b"path=a\n".to_vec(), Refusal::BadExtension),
            (b"99 path=a\n".to_vec(), Refusal::BadExtension),
            (b"4 a\n".to_vec(), Refusal::BadExtension),
            (b"0 \n".to_vec(), Refusal::BadExtension),
            (
                b"99999999999999999999 path=a\n".to_vec(),
                Refusal::BadExtension,
            ),
            (pax("uid", b"x"), Refusal::BadNumber("uid")),
            (pax("gid", b"4294967296"), Refusal::BadNumber("gid")),
            (pax("size", b"-1"), Refusal::BadNumber("size")),
            (pax("GNU.sparse.major", b"1"), Refusal::Sparse),
        ] {
            let shown = String::from_utf8_lossy(&body).into_owned();
            assert_eq!(
                Extensions::default().absorb_pax(&body),
                Err(reason),
                "{shown:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Extensions::default().absorb_pax(&body);
        }
    }
}

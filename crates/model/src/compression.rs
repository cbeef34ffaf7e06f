//! How the RAM of a memory image is stored: as it is, or compressed.

use std::str::FromStr;

/// Levels of zstd, fastest first, as the public contract has them.
pub const ZSTD_LEVELS: std::ops::RangeInclusive<u8> = 1..=19;

/// What a memory image is written with.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Nothing.
    #[default]
    Off,
    /// zstd, in chunks that can be read each by itself.
    Zstd {
        /// One of [`ZSTD_LEVELS`].
        level: u8,
    },
}

/// Level of zstd where none is given. RAM hardly gets smaller at higher ones.
pub const DEFAULT_ZSTD_LEVEL: u8 = *ZSTD_LEVELS.start();

impl Compression {
    /// zstd at `level`, or at the default one.
    pub fn zstd(level: Option<i64>) -> Result<Self, CompressionError> {
        let Some(asked) = level else {
            return Ok(Self::Zstd {
                level: DEFAULT_ZSTD_LEVEL,
            });
        };
        match u8::try_from(asked) {
            Ok(level) if ZSTD_LEVELS.contains(&level) => Ok(Self::Zstd { level }),
            _ => Err(CompressionError::Level(asked)),
        }
    }

    /// What one image is written with: as its standby was asked for, else as the instance says, else the server.
    #[must_use]
    pub fn choose(request: Option<Self>, instance: Option<Self>, server: Self) -> Self {
        request.or(instance).unwrap_or(server)
    }
}

/// What an instance says about its memory images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct SnapshotPolicy {
    /// What they are written with; none = as the server says.
    pub compression: Option<Compression>,
}

/// Why something is no way to store RAM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// zstd has no such level.
    #[error("zstd has levels {first} to {last}, not {0}", first = ZSTD_LEVELS.start(), last = ZSTD_LEVELS.end())]
    Level(i64),
    /// Neither `off` nor `zstd` nor `zstd:LEVEL`.
    #[error("it is neither off nor zstd nor zstd:LEVEL")]
    Form,
}

/// As the configuration of a server has it: `off`, `zstd`, `zstd:LEVEL`.
impl FromStr for Compression {
    type Err = CompressionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "off" => Ok(Self::Off),
            None if text == "zstd" => Self::zstd(None),
            Some(("zstd", level)) => {
                let level = level.parse().map_err(|_| CompressionError::Form)?;
                Self::zstd(Some(level))
            }
            _ => Err(CompressionError::Form),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_or_refused_with_what_is_right() {
        assert_eq!("off".parse(), Ok(Compression::Off));
        assert_eq!("zstd".parse(), Ok(Compression::Zstd { level: 1 }));
        assert_eq!("zstd:19".parse(), Ok(Compression::Zstd { level: 19 }));
        for level in [0_i64, 20, -1, 257] {
            let refused = Compression::zstd(Some(level)).unwrap_err();
            assert!(refused.to_string().contains("1 to 19"), "{refused}");
            assert_eq!(format!("zstd:{level}").parse::<Compression>(), Err(refused));
        }
        for text in ["", "lz4", "zstd:", "zstd:fast", "off:1", "Zstd"] {
            assert_eq!(text.parse::<Compression>(), Err(CompressionError::Form));
        }
    }

    #[test]
    fn whoever_is_nearer_to_the_image_decides() {
        let zstd = |level| Compression::Zstd { level };
        let server = zstd(1);
        assert_eq!(Compression::choose(None, None, server), server);
        assert_eq!(Compression::choose(None, Some(zstd(2)), server), zstd(2));
        let off = Some(Compression::Off);
        assert_eq!(Compression::choose(None, off, server), Compression::Off);
        let asked = Compression::choose(off, Some(zstd(2)), server);
        assert_eq!(asked, Compression::Off);
    }
}

//! How memory images are written, and how one is.

use api::error::codes;
use api::instances::{
    CompressionAlgorithm, ImageEncoding, MemoryImage, SnapshotCompression, SnapshotPolicy,
    StandbyRequest,
};
use memory::StoredRam;
use model::{Compression, parse_duration};

use super::super::error::ApiError;

/// What a request for a standby says of its memory image.
pub(crate) fn standby(request: StandbyRequest) -> Result<Option<Compression>, ApiError> {
    if let Some(delay) = request.compression_delay.as_deref() {
        check_delay(delay).map_err(|why| {
            let message = format!("compression_delay {delay:?}: {why}");
            ApiError::invalid(codes::INVALID_COMPRESSION_DELAY, message)
        })?;
    }
    request
        .compression
        .map(compression)
        .transpose()
        .map_err(|why| {
            ApiError::invalid(
                codes::INVALID_SNAPSHOT_COMPRESSION,
                format!("compression: {why}"),
            )
        })
}

/// The policy of a new instance.
pub(super) fn policy(policy: Option<SnapshotPolicy>) -> Result<model::SnapshotPolicy, ApiError> {
    let SnapshotPolicy {
        compression: asked,
        standby_compression_delay: delay,
    } = policy.unwrap_or_default();
    let invalid = |field: &str, why: String| {
        let message = format!("snapshot_policy.{field}: {why}");
        ApiError::invalid(codes::INVALID_SNAPSHOT_POLICY, message)
    };
    if let Some(delay) = delay.as_deref() {
        check_delay(delay)
            .map_err(|why| invalid("standby_compression_delay", format!("{delay:?}: {why}")))?;
    }
    let compression = asked.map(compression).transpose();
    Ok(model::SnapshotPolicy {
        compression: compression.map_err(|why| invalid("compression", why))?,
    })
}

fn compression(asked: SnapshotCompression) -> Result<Compression, String> {
    if asked.algorithm == Some(CompressionAlgorithm::Lz4) {
        return if asked.enabled {
            Err("this server writes zstd, not lz4; leave algorithm out".to_owned())
        } else {
            Ok(Compression::Off)
        };
    }
    let zstd = Compression::zstd(asked.level).map_err(|error| format!("level: {error}"))?;
    Ok(if asked.enabled {
        zstd
    } else {
        Compression::Off
    })
}

fn check_delay(delay: &str) -> Result<(), String> {
    match parse_duration(delay) {
        Err(error) => Err(error.to_string()),
        Ok(delay) if delay.is_zero() => Ok(()),
        Ok(_) => Err(
            "a memory image is compressed while it is written and never changed afterwards, so \
             there is nothing to delay; leave it out"
                .to_owned(),
        ),
    }
}

pub(super) fn shown_policy(policy: model::SnapshotPolicy) -> Option<SnapshotPolicy> {
    let compression = match policy.compression? {
        Compression::Off => SnapshotCompression::default(),
        Compression::Zstd { level } => SnapshotCompression {
            enabled: true,
            algorithm: Some(CompressionAlgorithm::Zstd),
            level: Some(level.into()),
        },
    };
    Some(SnapshotPolicy {
        compression: Some(compression),
        standby_compression_delay: None,
    })
}

pub(super) fn image(stored: StoredRam) -> MemoryImage {
    MemoryImage {
        encoding: match stored.compressed_layers {
            0 => ImageEncoding::Plain,
            some if some == stored.layers => ImageEncoding::Zstd,
            _ => ImageEncoding::Mixed,
        },
        layers: stored.layers as u64,
        memory_bytes: stored.ram_bytes,
        stored_bytes: stored.stored_bytes,
    }
}

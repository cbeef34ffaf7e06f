//! Arguments about memory images.

use api::instances::{CompressionAlgorithm, SnapshotCompression};
use clap::{Args, ValueEnum};

/// What a memory image is compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AlgorithmArg {
    /// What coppice writes
    Zstd,
    /// For servers that write it
    Lz4,
}

#[derive(Debug, Args)]
#[command(after_help = "\
What is not given is as the instance has it, else as the daemon has it.")]
pub(crate) struct StandbyArgs {
    /// Instances
    #[arg(required = true, value_name = "INSTANCE")]
    pub(crate) instances: Vec<String>,
    #[command(flatten)]
    compression: CompressionArgs,
}

#[derive(Debug, Args)]
struct CompressionArgs {
    /// Compress the memory image while it is written
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    compression_enabled: Option<bool>,
    /// With what; given alone it means that it is compressed
    #[arg(long, value_name = "NAME")]
    compression_algorithm: Option<AlgorithmArg>,
    /// How thoroughly, for zstd 1 to 19; given alone it means that it is compressed [default: 1]
    #[arg(long, value_name = "LEVEL")]
    compression_level: Option<i64>,
}

impl StandbyArgs {
    pub(crate) fn compression(&self) -> Option<SnapshotCompression> {
        let args = &self.compression;
        compression(
            args.compression_enabled,
            args.compression_algorithm,
            args.compression_level,
        )
    }
}

/// How the memory images of a new instance are written.
#[derive(Debug, Args)]
pub(crate) struct SnapshotPolicyArgs {
    /// Compress its memory images while they are written [default: as the daemon has it]
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    snapshot_compression_enabled: Option<bool>,
    /// With what; given alone it means that they are compressed
    #[arg(long, value_name = "NAME")]
    snapshot_compression_algorithm: Option<AlgorithmArg>,
    /// How thoroughly, for zstd 1 to 19; given alone it means that they are compressed [default: 1]
    #[arg(long, value_name = "LEVEL")]
    snapshot_compression_level: Option<i64>,
}

impl SnapshotPolicyArgs {
    pub(crate) fn compression(&self) -> Option<SnapshotCompression> {
        compression(
            self.snapshot_compression_enabled,
            self.snapshot_compression_algorithm,
            self.snapshot_compression_level,
        )
    }
}

fn compression(
    enabled: Option<bool>,
    algorithm: Option<AlgorithmArg>,
    level: Option<i64>,
) -> Option<SnapshotCompression> {
    let given = enabled.is_some() || algorithm.is_some() || level.is_some();
    given.then_some(SnapshotCompression {
        enabled: enabled.unwrap_or(true),
        algorithm: algorithm.map(|algorithm| match algorithm {
            AlgorithmArg::Zstd => CompressionAlgorithm::Zstd,
            AlgorithmArg::Lz4 => CompressionAlgorithm::Lz4,
        }),
        level,
    })
}

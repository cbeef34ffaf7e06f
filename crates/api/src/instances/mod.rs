//! Instances: microVMs made from images.

mod state;

mod view;

mod requests;

mod fork;

mod memory;

mod snapshot;

mod network;

mod wait;

mod guest;

mod stats;

mod query;

pub use fork::{ForkManyResponse, ForkOutcome, ForkRequest, ForkResponse, ForkTarget, PostFork};
pub use guest::{LogSource, LogsQuery, PathInfo, StatQuery};
pub use memory::{InstanceMemory, MemoryBackend, MemoryMode, Prefetch};
pub use network::{
    EgressEnforcement, EgressMode, EgressRequest, InstanceEgress, InstanceNetwork, NetworkRequest,
    PublishedPort, Transport,
};
pub use query::{DeleteInstanceQuery, ListInstancesQuery};
pub use requests::{CreateInstanceRequest, PromoteRequest, StartRequest, UpdateInstanceRequest};
pub use snapshot::{
    CompressionAlgorithm, ImageEncoding, MemoryImage, SnapshotCompression, SnapshotPolicy,
    StandbyRequest,
};
pub use state::InstanceState;
pub use stats::{
    HotPagesStats, InstanceStats, LatencyBucket, MemoryStats, PagerStats, TemplateStats,
};
pub use view::{Instance, VolumeMount};
pub use wait::{WaitQuery, WaitResponse};

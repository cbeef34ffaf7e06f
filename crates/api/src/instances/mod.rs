//! Instances: microVMs made from images.

mod state;

mod view;

mod requests;

mod fork;

mod wait;

mod guest;

mod stats;

mod query;

pub use fork::{ForkManyResponse, ForkOutcome, ForkRequest, ForkResponse, ForkTarget, PostFork};
pub use guest::{LogSource, LogsQuery, PathInfo, StatQuery};
pub use query::{DeleteInstanceQuery, ListInstancesQuery};
pub use requests::{
    CreateInstanceRequest, NetworkRequest, StandbyRequest, StartRequest, UpdateInstanceRequest,
};
pub use state::InstanceState;
pub use stats::{InstanceStats, MemoryStats, TemplateStats};
pub use view::{Instance, InstanceMemory, InstanceNetwork, MemoryMode, VolumeMount};
pub use wait::{WaitQuery, WaitResponse};

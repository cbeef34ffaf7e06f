//! Wire types to the model, fallible; and back, total.

use std::collections::BTreeMap;
use std::time::Duration;

use api::error::codes;
use api::instances::{
    CreateInstanceRequest, ForkRequest, ForkTarget, Instance, InstanceState, PostFork,
    UpdateInstanceRequest,
};
use hypervisor::Driver;
use model::{
    ByteSize, ForkAsk, InstanceSpec, Name, State, Tags, Target, UnixMillis, check_fork, check_tags,
    parse_duration,
};
use time::OffsetDateTime;

mod memory;
mod network;
mod snapshot;

pub(crate) use memory::fork_memory;
pub(crate) use snapshot::standby;

use super::error::ApiError;
use crate::instances::{Drivers, ForkOrder, Patch, View};

/// Default RAM, as the public contract has it.
const DEFAULT_SIZE: ByteSize = ByteSize::gib(1);
/// Default size of the writable disk, as the public contract has it.
const DEFAULT_OVERLAY: ByteSize = ByteSize::gib(10);
/// Default number of vCPUs, as the public contract has it.
const DEFAULT_VCPUS: u32 = 2;
/// How long a post_fork command may take when the request does not say.
const DEFAULT_HOOK_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest post_fork command: it must end within the wait for a resumed guest.
const MAX_HOOK_TIMEOUT: Duration = Duration::from_secs(55);

/// What an instance may ask for at most, and at least.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Least RAM: a kernel with less does not boot.
    pub min_size: ByteSize,
    /// Most RAM.
    pub max_size: ByteSize,
    /// Least disk: an empty file system needs some.
    pub min_overlay: ByteSize,
    /// Most disk.
    pub max_overlay: ByteSize,
    /// Most vCPUs.
    pub max_vcpus: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min_size: ByteSize::mib(96),
            max_size: ByteSize::gib(32),
            min_overlay: ByteSize::mib(16),
            max_overlay: ByteSize::gib(100),
            max_vcpus: 16,
        }
    }
}

/// A create request as a complete spec. The image is resolved by the caller.
pub(crate) fn spec(
    request: CreateInstanceRequest,
    limits: Limits,
    drivers: &Drivers,
    networks: Result<(), &str>,
    image: String,
    image_digest: String,
) -> Result<InstanceSpec, ApiError> {
    if request.skip_guest_agent == Some(true) {
        return Err(ApiError::invalid(
            codes::INVALID_REQUEST,
            "skip_guest_agent is not supported: the agent is what starts the image's program",
        ));
    }
    let driver = vmm(request.hypervisor.as_deref(), drivers)?;
    let platform = request.platform.unwrap_or_else(|| "linux/amd64".to_owned());
    if platform != "linux/amd64" {
        return Err(ApiError::invalid(
            codes::INVALID_PLATFORM,
            format!("platform {platform:?} does not run here; this server runs linux/amd64"),
        ));
    }
    let vcpus = request.vcpus.unwrap_or(DEFAULT_VCPUS);
    let max_vcpus = limits.max_vcpus.min(driver.powers().max_vcpus);
    if !(1..=max_vcpus).contains(&vcpus) {
        return Err(ApiError::invalid(
            codes::INVALID_REQUEST,
            format!("vcpus must be 1 to {max_vcpus}, not {vcpus}"),
        ));
    }
    Ok(InstanceSpec {
        image,
        image_digest,
        platform,
        hypervisor: driver.identity().name.clone(),
        size: size(
            request.size.as_deref(),
            DEFAULT_SIZE,
            limits.min_size..=limits.max_size,
            ("size", codes::INVALID_SIZE),
        )?,
        overlay_size: size(
            request.overlay_size.as_deref(),
            DEFAULT_OVERLAY,
            limits.min_overlay..=limits.max_overlay,
            ("overlay_size", codes::INVALID_OVERLAY_SIZE),
        )?,
        vcpus,
        env: env(request.env)?,
        tags: tags(request.tags)?,
        entrypoint: request.entrypoint,
        cmd: request.cmd,
        post_fork: request.post_fork.map(hook).transpose()?,
        network: network::of_create(request.network, networks)?,
        memory: model::MemorySpec::default(),
        snapshots: snapshot::policy(request.snapshot_policy)?,
    })
}

/// The VMM that a new instance runs on.
fn vmm<'a>(asked: Option<&str>, drivers: &'a Drivers) -> Result<&'a dyn Driver, ApiError> {
    let name = asked.unwrap_or(drivers.default_name());
    if !drivers.all().any(|(known, _)| known == name) {
        let known: Vec<&str> = drivers.all().map(|(known, _)| known).collect();
        return Err(ApiError::invalid(
            codes::INVALID_REQUEST,
            format!(
                "hypervisor {name:?} is not supported; this server supports: {}",
                known.join(", ")
            ),
        ));
    }
    Ok(drivers.named(name)?.as_ref())
}

/// A size within bounds, rounded up to whole mebibytes, which is what VMMs take.
fn size(
    text: Option<&str>,
    default: ByteSize,
    bounds: std::ops::RangeInclusive<ByteSize>,
    (field, code): (&str, &'static str),
) -> Result<ByteSize, ApiError> {
    let Some(text) = text else {
        return Ok(default);
    };
    let size: ByteSize = text
        .parse()
        .map_err(|error| ApiError::invalid(code, format!("{field} {text:?}: {error}")))?;
    if !bounds.contains(&size) {
        return Err(ApiError::invalid(
            code,
            format!(
                "{field} must be {} to {}, not {size}",
                bounds.start(),
                bounds.end()
            ),
        ));
    }
    Ok(ByteSize::mib(size.bytes().div_ceil(1 << 20)))
}

/// An instance name.
pub(crate) fn name(text: &str) -> Result<Name, ApiError> {
    text.parse()
        .map_err(|error| ApiError::invalid(codes::INVALID_NAME, format!("name {text:?}: {error}")))
}

fn env(env: Option<BTreeMap<String, String>>) -> Result<BTreeMap<String, String>, ApiError> {
    let env = env.unwrap_or_default();
    for (key, value) in &env {
        if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
            return Err(ApiError::invalid(
                codes::INVALID_REQUEST,
                format!(
                    "env {key:?}: a key is not empty and has no =, and neither has a zero byte"
                ),
            ));
        }
    }
    Ok(env)
}

pub(crate) fn tags(tags: Option<Tags>) -> Result<Tags, ApiError> {
    let tags = tags.unwrap_or_default();
    check_tags(&tags)
        .map_err(|error| ApiError::invalid(codes::INVALID_REQUEST, error.to_string()))?;
    Ok(tags)
}

/// Whether an object has all the tags that a filter asks for.
pub(crate) fn has_tags(tags: &Tags, asked: &Tags) -> bool {
    asked
        .iter()
        .all(|(key, value)| tags.get(key) == Some(value))
}

fn hook(hook: PostFork) -> Result<model::PostFork, ApiError> {
    let timeout = match hook.timeout.as_deref() {
        None => DEFAULT_HOOK_TIMEOUT,
        Some(text) => parse_duration(text).map_err(|error| {
            ApiError::invalid(
                codes::INVALID_TIMEOUT,
                format!("post_fork.timeout {text:?}: {error}"),
            )
        })?,
    };
    if hook.command.is_empty() || timeout.is_zero() || timeout > MAX_HOOK_TIMEOUT {
        return Err(ApiError::invalid(
            codes::INVALID_REQUEST,
            format!(
                "post_fork needs a command and a timeout above 0 and up to {}s",
                MAX_HOOK_TIMEOUT.as_secs()
            ),
        ));
    }
    Ok(model::PostFork {
        command: hook.command,
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
    })
}

/// When an instance is to be deleted: none = the request does not say, inner none = never.
pub(crate) fn expiry(
    ttl: Option<&str>,
    expires_at: Option<OffsetDateTime>,
    now: UnixMillis,
) -> Result<Option<Option<UnixMillis>>, ApiError> {
    match (ttl, expires_at) {
        (Some(_), Some(_)) => Err(ApiError::invalid(
            codes::INVALID_REQUEST,
            "ttl and expires_at exclude each other",
        )),
        (Some(ttl), None) => {
            let duration = parse_duration(ttl).map_err(|error| {
                ApiError::invalid(codes::INVALID_TTL, format!("ttl {ttl:?}: {error}"))
            })?;
            Ok(Some((!duration.is_zero()).then(|| now.plus(duration))))
        }
        (None, Some(at)) => {
            let at = millis(at);
            if at <= now {
                return Err(ApiError::invalid(
                    codes::INVALID_EXPIRES_AT,
                    "expires_at is not in the future",
                ));
            }
            Ok(Some(Some(at)))
        }
        (None, None) => Ok(None),
    }
}

/// A patch request.
pub(crate) fn patch(request: UpdateInstanceRequest, now: UnixMillis) -> Result<Patch, ApiError> {
    Ok(Patch {
        expires_at: expiry(request.ttl.as_deref(), request.expires_at, now)?,
        tags: request.tags.map(|given| tags(Some(given))).transpose()?,
        env: env(request.env)?,
        network: network::patch(request.network)?,
        memory: memory::fork_memory(request.memory_backend, request.prefetch),
    })
}

/// A fork request, but for its `template_id`, which the caller resolves.
pub(crate) fn fork(request: ForkRequest) -> Result<ForkOrder, ApiError> {
    let ask = ForkAsk {
        share_memory: request.share_memory,
        from_running: request.from_running.unwrap_or(false),
        names_template: request.template_id.is_some(),
        target: request.target_state.map(|target| match target {
            ForkTarget::Stopped => Target::Stopped,
            ForkTarget::Standby => Target::Standby,
            ForkTarget::Running => Target::Running,
        }),
        count: request.count,
    };
    // Before anything is looked up: a contradiction is one whatever the source is.
    check_fork(ask)?;
    let network = network::patch(request.network)?;
    let publishes = network
        .publish
        .as_ref()
        .is_some_and(|ports| !ports.is_empty());
    if publishes && request.count.is_some_and(|count| count > 1) {
        return Err(ApiError::invalid(
            codes::INVALID_REQUEST,
            "a port of the host leads to one instance: publish ports with one fork at a time",
        ));
    }
    Ok(ForkOrder {
        ask,
        name: request.name,
        env: env(request.env)?,
        tags: request.tags.map(|given| tags(Some(given))).transpose()?,
        post_fork: request.post_fork.map(hook).transpose()?,
        network,
        memory_backend: request.memory_backend.map(memory::wish),
        hypervisor: request.hypervisor,
        heir_of: None,
    })
}

/// An instance as the wire shows it.
pub(crate) fn instance(view: View, now: UnixMillis) -> Instance {
    let View {
        record,
        live_forks,
        published,
    } = view;
    let state = state(published.state);
    let durations = published.phases.durations_ms(now);
    Instance {
        id: record.id.to_string(),
        name: record.name.to_string(),
        image: record.spec.image,
        state,
        state_error: published.state_error,
        hypervisor: record.spec.hypervisor,
        platform: record.spec.platform,
        size: record.spec.size.to_string(),
        overlay_size: record.spec.overlay_size.to_string(),
        vcpus: record.spec.vcpus,
        env: record.spec.env,
        tags: record.spec.tags,
        network: network::view(&record.spec.network, record.lease),
        volumes: Vec::new(),
        has_snapshot: record.standby.is_some(),
        snapshot_policy: snapshot::shown_policy(record.spec.snapshots),
        exit_code: record.exit.as_ref().and_then(|exit| exit.code),
        exit_message: record.exit.and_then(|exit| exit.message),
        created_at: date(record.created_at),
        started_at: record.started_at.map(date),
        stopped_at: record.stopped_at.map(date),
        expires_at: record.expires_at.map(date),
        current_phase: state.phase().to_owned(),
        current_phase_since: date(published.phases.since),
        phase_durations_ms: durations
            .into_iter()
            .map(|(phase, ms)| (self::state(phase).phase().to_owned(), ms))
            .collect(),
        fork_count: live_forks,
        mem_locked: live_forks > 0,
        fork_of_template: record.parent.map(|id| id.to_string()),
        memory_backend: memory::backend(&record.memory),
        fork_memory_backend: record.spec.memory.backend.map(memory::wished),
        prefetch: record
            .template
            .then_some(memory::prefetch(record.spec.memory.prefetch)),
        memory: memory::origin(record.memory),
        memory_image: published.image.map(snapshot::image),
    }
}

/// A state in the words of the wire.
pub(crate) fn state(state: State) -> InstanceState {
    match state {
        State::Stopped => InstanceState::Stopped,
        State::Created => InstanceState::Created,
        State::Initializing => InstanceState::Initializing,
        State::Running => InstanceState::Running,
        State::Paused => InstanceState::Paused,
        State::Shutdown => InstanceState::Shutdown,
        State::Standby => InstanceState::Standby,
        State::Template => InstanceState::Template,
        State::Unknown => InstanceState::Unknown,
    }
}

/// A state of the wire in our words.
pub(crate) fn wanted_state(state: InstanceState) -> State {
    match state {
        InstanceState::Stopped => State::Stopped,
        InstanceState::Created => State::Created,
        InstanceState::Initializing => State::Initializing,
        InstanceState::Running => State::Running,
        InstanceState::Paused => State::Paused,
        InstanceState::Shutdown => State::Shutdown,
        InstanceState::Standby => State::Standby,
        InstanceState::Template => State::Template,
        InstanceState::Unknown => State::Unknown,
    }
}

fn millis(at: OffsetDateTime) -> UnixMillis {
    let ms = at.unix_timestamp_nanos() / 1_000_000;
    UnixMillis(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// A moment as a date; one that no date can name is shown as the epoch.
pub(crate) fn date(at: UnixMillis) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0) * 1_000_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

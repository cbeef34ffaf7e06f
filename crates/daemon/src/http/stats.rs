//! What an instance costs its host, counted by the kernel.

use api::instances::{
    HotPagesStats, InstanceStats, LatencyBucket, MemoryStats, PagerStats, TemplateStats,
};
use axum::Json;
use axum::extract::State;
use futures::{StreamExt as _, stream};
use hypervisor::{MemoryUse, Vm, VmmError};
use memory::PAGE_BYTES;
use network::{Slot, Traffic};
use pager::HotPages;

use super::App;
use super::error::ApiError;
use super::extract::Key;
use super::instances::view;
use crate::instances::{Figures, Listed, MappedFigures, Networking, OpError, View};

/// Processes whose page tables are read at one time: each costs a few milliseconds of CPU.
const PARALLEL_REPORTS: usize = 4;

/// What an instance costs its host.
#[utoipa::path(get, path = "/instances/{id}/stats", operation_id = "getInstanceStats", tag = "instances", params(("id" = String, Path)),
    responses((status = 200, body = InstanceStats), (status = 404, body = api::error::ErrorBody)))]
pub(crate) async fn stats(
    State(app): State<App>,
    Key(key): Key,
) -> Result<Json<InstanceStats>, ApiError> {
    let view = view(&app, &key).await?;
    let memory = memory_use(&view).await.map_err(OpError::from)?;
    let template = if view.record.template {
        Some(template_stats(&app, &view).await?)
    } else {
        None
    };
    let allocated = view.record.spec.size.bytes();
    let usage = memory.unwrap_or_default();
    let traffic = traffic(&app, &view).await;
    Ok(Json(InstanceStats {
        instance_id: view.record.id.to_string(),
        instance_name: view.record.name.to_string(),
        cpu_seconds: usage.cpu_seconds,
        memory_rss_bytes: usage.rss_bytes,
        memory_vms_bytes: usage.vms_bytes,
        network_rx_bytes: traffic.rx_bytes,
        network_tx_bytes: traffic.tx_bytes,
        allocated_vcpus: view.record.spec.vcpus,
        allocated_memory_bytes: allocated,
        memory_utilization_ratio: (allocated > 0).then(|| ratio(usage.rss_bytes, allocated)),
        memory: memory.map(|usage| MemoryStats {
            guest_ram_bytes: usage.ram_bytes,
            shared_with_image_bytes: usage.ram_shared_bytes,
            private_bytes: usage.ram_private_bytes,
            vmm_private_bytes: usage.vmm_private_bytes,
            pss_bytes: usage.pss_bytes,
            page_faults: usage.page_faults,
        }),
        template,
        pager: match &view.published.paged {
            Some(paged) => paged.figures().await.map(pager_stats),
            None => None,
        },
        hot_pages: view
            .published
            .mapped
            .as_ref()
            .map(|mapped| hot_pages_stats(mapped.figures())),
    }))
}

/// What its forks would need beyond what they share, if each had a copy.
async fn template_stats(app: &App, template: &View) -> Result<TemplateStats, ApiError> {
    let forks: Vec<View> = app
        .instances
        .list()
        .await?
        .into_iter()
        .filter_map(|listed| match listed {
            Listed::Known(view) if view.record.parent.as_ref() == Some(&template.record.id) => {
                Some(*view)
            }
            Listed::Known(_) | Listed::Unreadable { .. } => None,
        })
        .collect();
    // A fork that ends while it is being read is not running any more: left out.
    let reports: Vec<MemoryUse> = stream::iter(&forks)
        .map(memory_use)
        .buffer_unordered(PARALLEL_REPORTS)
        .filter_map(async |report| report.ok().flatten())
        .collect()
        .await;
    let (mut warm_forks, mut warm_private_bytes) = (0, 0);
    for vm in &template.published.warm {
        // One that was taken or ended meanwhile is left out as well.
        if let Ok(Some(usage)) = vm_memory(vm.as_ref()).await {
            warm_forks += 1;
            warm_private_bytes += usage.ram_private_bytes + usage.vmm_private_bytes;
        }
    }
    let resident_bytes = template.published.held_bytes;
    let hot = hot_pages(app, template).await;
    let forks = reports.len() as u64;
    Ok(TemplateStats {
        forks,
        resident_bytes,
        // A copy would hold every page of the image, touched or not; one is needed anyway.
        saved_bytes: resident_bytes * forks.saturating_sub(1),
        warm_forks,
        warm_private_bytes,
        hot_recordings: hot.as_ref().map_or(0, |hot| hot.recordings),
        hot_bytes: hot.map_or(0, |hot| hot.page_count() * PAGE_BYTES as u64),
    })
}

/// The hot pages of a template.
async fn hot_pages(app: &App, template: &View) -> Option<HotPages> {
    let image = template.record.standby.as_ref()?;
    let dir = app.layout.instance(&template.record.id);
    let store = app.instances.pagers().hot_store(&dir, image);
    // Shown where they can be read.
    tokio::task::spawn_blocking(move || store.load())
        .await
        .ok()
        .flatten()
}

fn pager_stats(figures: Figures) -> PagerStats {
    let stats = figures.stats;
    let last = stats.latency.counts.len() - 1;
    let buckets = stats.latency.counts.iter().enumerate();
    PagerStats {
        complete: figures.complete,
        faults: stats.faults,
        copied_bytes: stats.copied_bytes,
        zeroed_bytes: stats.zeroed_bytes,
        ahead_bytes: stats.ahead_bytes,
        removed_bytes: stats.removed_bytes,
        already_present: stats.already_present,
        retries: stats.retries,
        takeovers: stats.takeovers,
        recording: figures.recording,
        hot_bytes: figures.hot_bytes,
        fault_p50_us: stats.latency.quantile_us(0.5),
        fault_p99_us: stats.latency.quantile_us(0.99),
        fault_latency: buckets
            .filter(|(_, count)| **count > 0)
            .map(|(power, count)| LatencyBucket {
                below_us: (power < last).then(|| 1 << power),
                count: *count,
            })
            .collect(),
    }
}

fn hot_pages_stats(figures: MappedFigures) -> HotPagesStats {
    HotPagesStats {
        recording: figures.recording,
        hot_bytes: figures.hot_bytes,
        ahead_bytes: figures.ahead_bytes,
        // A second at most.
        ahead_us: figures.took.as_micros() as u64,
    }
}

/// What passed its slot; nothing for a machine that has none, or has just lost it.
async fn traffic(app: &App, view: &View) -> Traffic {
    let (Some(lease), Networking::Ready(network)) = (view.record.lease, app.instances.network())
    else {
        return Traffic::default();
    };
    network.traffic(Slot(lease.slot)).await.unwrap_or_default()
}

async fn memory_use(view: &View) -> Result<Option<MemoryUse>, VmmError> {
    match &view.published.vm {
        Some(vm) => vm_memory(vm.as_ref()).await,
        None => Ok(None),
    }
}

async fn vm_memory(vm: &dyn Vm) -> Result<Option<MemoryUse>, VmmError> {
    match vm.memory() {
        Some(memory) => memory.report().await.map(Some),
        None => Ok(None),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

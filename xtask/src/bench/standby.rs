//! A fork that has changed much goes to standby.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use api::instances::{SnapshotCompression, StandbyRequest};

use super::lab::Lab;
use super::report::Report;
use super::samples::{mib, ms};

/// What the fork changes.
const CHANGED_BYTES: u64 = 30 << 20;

/// What standby may take besides writing the bytes, ms.
const OVERHEAD_MS: f64 = 150.0;

/// Size of the image against the changed bytes.
const SIZE_BOUND: f64 = 1.2;

/// Time and size, next to a plain write of the same bytes.
pub(super) async fn measure(lab: &Lab<'_>, report: &mut Report) -> anyhow::Result<()> {
    println!("standby of a fork that changed 30 MiB");
    let (mut times, mut bounds, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..lab.samples(5, 2) {
        let fork = lab.fork("sleeper").await?;
        let fill = format!("head -c {CHANGED_BYTES} /dev/urandom > /dev/shm/ballast");
        lab.exec(&fork.id, &["sh", "-c", &fill]).await?;
        let began = Instant::now();
        lab.client
            .standby(&fork.id, &StandbyRequest::default())
            .await?;
        times.push(ms(began.elapsed()));
        let dir = lab.daemon.data_dir().join("instances").join(&fork.id);
        let bytes = own_bytes(&dir.join("memory"))?;
        sizes.push(mib(bytes));
        bounds.push(plain_write(&lab.daemon.data_dir(), bytes)? + OVERHEAD_MS);
        lab.remove(&fork.id).await?;
    }
    report.ratio(
        "standby, 30 MiB changed; write + 150 ms",
        "ms",
        &times,
        &bounds,
        1.0,
    );
    let changed = [mib(CHANGED_BYTES)];
    report.ratio(
        "its image; changed bytes",
        "MiB",
        &sizes,
        &changed,
        SIZE_BOUND,
    );
    Ok(())
}

/// The same with program code, which is what memory is full of, compressed next to plain.
pub(super) async fn measure_compressed(lab: &Lab<'_>, report: &mut Report) -> anyhow::Result<()> {
    println!("standby of a fork that changed 30 MiB, compressed");
    let (mut times, mut sizes) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..lab.samples(5, 2) {
        for (which, enabled) in [false, true].into_iter().enumerate() {
            let fork = lab.fork("sleeper").await?;
            let fill = format!(
                "while cat /bin/busybox; do :; done | head -c {CHANGED_BYTES} > /dev/shm/ballast"
            );
            lab.exec(&fork.id, &["sh", "-c", &fill]).await?;
            let request = StandbyRequest {
                compression: Some(SnapshotCompression {
                    enabled,
                    ..SnapshotCompression::default()
                }),
                compression_delay: None,
            };
            let began = Instant::now();
            lab.client.standby(&fork.id, &request).await?;
            times[which].push(ms(began.elapsed()));
            let dir = lab.daemon.data_dir().join("instances").join(&fork.id);
            sizes[which].push(mib(own_bytes(&dir.join("memory"))?));
            lab.remove(&fork.id).await?;
        }
    }
    let [plain, zstd] = times;
    report.compare("compressed standby of code; plain", "ms", &zstd, &plain);
    let [plain, zstd] = sizes;
    report.compare("its image; plain", "MiB", &zstd, &plain);
    Ok(())
}

/// Bytes on disk of files that nobody else has a link to.
fn own_bytes(dir: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        let meta = fs::symlink_metadata(&path)?;
        if meta.is_dir() {
            sum += own_bytes(&path)?;
        } else if meta.nlink() == 1 {
            // stat(2) counts blocks of 512 bytes.
            sum += meta.blocks() * 512;
        }
    }
    Ok(sum)
}

/// Time to write so many bytes and have them on the disk, ms.
fn plain_write(dir: &Path, bytes: u64) -> anyhow::Result<f64> {
    let mut content = vec![0; usize::try_from(bytes)?];
    getrandom::fill(&mut content)?;
    let path = dir.join("plain-write");
    let began = Instant::now();
    let mut file = File::create(&path)?;
    file.write_all(&content)?;
    file.sync_all()?;
    let took = ms(began.elapsed());
    fs::remove_file(&path)?;
    Ok(took)
}

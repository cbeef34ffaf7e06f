//! What idle forks cost, and how many fit.

use std::time::Duration;

use super::lab::Lab;
use super::procfs;
use super::report::Report;
use super::samples::mib;

/// Forks alive at one time.
const FORKS: u32 = 64;

/// How long they idle before the look.
const IDLE: Duration = Duration::from_secs(10);

/// Guest pages that an idle fork may make its own, MiB.
const GUEST_BOUND_MIB: f64 = 2.0;

/// Unique set size of an idle fork under TCG, MiB.
const USS_BOUND_MIB: f64 = 25.0;

/// All of them above the template, MiB.
const ALL_BOUND_MIB: f64 = 2048.0;

/// Looks at all forks after they have idled.
pub(super) async fn measure(lab: &Lab<'_>, report: &mut Report) -> anyhow::Result<()> {
    println!("{FORKS} idle forks");
    // The template's memory is loaded, the idle fork maps it: what comes now is above the template.
    let before = procfs::available()?;
    let forks = lab.forks("idle", FORKS).await?;
    tokio::time::sleep(IDLE).await;
    let after = procfs::available()?;
    let (mut guest, mut uss) = (Vec::new(), Vec::new());
    for fork in &forks {
        let private = procfs::private(lab.daemon.vmm(&fork.id)?.pid)?;
        guest.push(mib(private.guest));
        uss.push(mib(private.uss));
    }
    lab.remove_all(&forks).await?;
    let sum: f64 = uss.iter().sum();
    report.all_at_most(
        "private guest pages, idle 10 s, worst",
        "MiB",
        &guest,
        GUEST_BOUND_MIB,
    );
    report.all_at_most("USS of an idle fork, worst", "MiB", &uss, USS_BOUND_MIB);
    report.at_most("64 forks, sum of USS", "MiB", &[sum], ALL_BOUND_MIB);
    // Others on this host take and give memory meanwhile.
    let taken = mib(before.saturating_sub(after));
    report.at_most(
        "64 forks, MemAvailable taken",
        "MiB",
        &[taken],
        ALL_BOUND_MIB,
    );
    Ok(())
}

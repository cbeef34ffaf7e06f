//! `coppiced setup`: kernel and initrd into the data directory.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use boot::{Assets, KernelSource, Step};

use crate::instances::Layout;

/// What to install from.
#[derive(Debug, Clone, clap::Args)]
pub struct SetupArgs {
    /// A kernel package (.deb) instead of the distribution's own
    #[arg(long)]
    kernel_package: Option<PathBuf>,
    /// The guest agent [default: coppice-agent beside this program]
    #[arg(long)]
    agent: Option<PathBuf>,
}

/// Installs kernel and initrd. Running it again installs only what has changed;
/// machines that run keep what they booted with.
pub fn run(args: SetupArgs, layout: &Layout, mut progress: impl FnMut(&str)) -> Result<Assets> {
    let agent = match args.agent {
        Some(agent) => agent,
        None => beside_us("coppice-agent")?,
    };
    let source = match args.kernel_package {
        Some(package) => KernelSource::Package(package),
        None => KernelSource::Debian,
    };
    std::fs::create_dir_all(layout.boot())
        .with_context(|| format!("cannot create {}", layout.boot().display()))?;
    Assets::install(&layout.boot(), &source, &agent, &mut |step| {
        progress(&describe(&step));
    })
    .context("cannot install the guest kernel")
}

fn describe(step: &Step) -> String {
    match step {
        Step::Download(package) => format!("downloading {package}"),
        Step::Unpack(package) => format!("unpacking {package}"),
        Step::BuildInitrd => "building the initrd".to_owned(),
        Step::UnpackKernel => "unpacking the kernel for Firecracker".to_owned(),
        Step::NoVmlinux(why) => format!("machines of this kernel cannot run on Firecracker: {why}"),
        Step::AlreadyInstalled => "nothing has changed".to_owned(),
        _ => "working".to_owned(),
    }
}

/// A program that was installed beside this one.
fn beside_us(name: &str) -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find this program's own path")?;
    let path = program.parent().unwrap_or(Path::new("/")).join(name);
    if !path.exists() {
        bail!(
            "{} is not there; install {name} beside coppiced or name it with --agent",
            path.display()
        );
    }
    Ok(path)
}

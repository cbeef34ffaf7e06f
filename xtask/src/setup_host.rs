//! `cargo xtask setup-host`: the packages that building and running need.

use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::process;

/// A program we call, and the package that has it.
struct Need {
    program: &'static str,
    package: &'static str,
}

const NEEDS: [Need; 9] = [
    Need {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
    },
    // Tests compare the disks we write with what QEMU's own tool makes of them.
    Need {
        program: "qemu-img",
        package: "qemu-utils",
    },
    Need {
        program: "mkfs.erofs",
        package: "erofs-utils",
    },
    Need {
        program: "mkfs.ext4",
        package: "e2fsprogs",
    },
    Need {
        program: "dpkg-deb",
        package: "dpkg",
    },
    // The table of the instances' network is loaded with it.
    Need {
        program: "nft",
        package: "nftables",
    },
    // Tests of the network look at it with the tools an operator has.
    Need {
        program: "ip",
        package: "iproute2",
    },
    // SQLite is compiled from C, and the agent is linked with the static C library.
    Need {
        program: "cc",
        package: "build-essential",
    },
    // Firecracker for the tests is fetched with it.
    Need {
        program: "pip3",
        package: "python3-pip",
    },
];

/// Stands for every package that is downloaded and unpacked later, none of which is installed.
const SAMPLE_PACKAGE: &str = "busybox-static";

/// Installs what is missing as root; as another user, fails with the command to run.
pub(crate) fn run() -> anyhow::Result<()> {
    let missing: Vec<_> = NEEDS
        .iter()
        .filter(|need| process::find_program(need.program).is_none())
        .map(|need| need.package)
        .collect();
    let lists_empty = boot::package::Package::locate(&[SAMPLE_PACKAGE]).is_err();
    if missing.is_empty() && !lists_empty {
        println!("setup-host: everything is there");
        return Ok(());
    }
    if !is_root()? {
        let install = format!(
            "apt-get install --no-install-recommends {}",
            missing.join(" ")
        );
        bail!("as root, run: apt-get update; {install}");
    }
    process::run(apt_get().arg("update")).context("refresh the package lists")?;
    if !missing.is_empty() {
        println!("setup-host: installing {}", missing.join(", "));
        let install = ["install", "--yes", "--no-install-recommends"];
        process::run(apt_get().args(install).args(&missing))?;
    }
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .arg("-q")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null());
    command
}

fn is_root() -> anyhow::Result<bool> {
    let uid = process::output(Command::new("id").arg("-u"))?;
    Ok(uid.trim() == "0")
}

//! What this host lacks for networks.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::nft::Nft;
use crate::Lack;
use crate::plan::table_mark;

/// Directories of system programs, for daemons whose `PATH` has none of them.
const PROGRAM_DIRS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"];
/// `NF_INET_FORWARD`.
const FORWARD: u32 = 2;
/// `NFPROTO_INET`.
const INET: u8 = 1;

/// Everything that is missing or in the way, worst first. Nothing is changed.
pub fn check() -> Vec<Lack> {
    let mut lacks = Vec::new();
    let mut need = |there: bool, what: &str, remedy: &str| {
        if !there {
            lacks.push(Lack {
                what: what.to_owned(),
                remedy: remedy.to_owned(),
                fatal: true,
            });
        }
    };
    let root = rustix::process::geteuid().is_root();
    need(
        root,
        "the daemon is not root",
        "run it as root to give instances a network",
    );
    need(
        Path::new("/dev/net/tun").exists(),
        "there is no /dev/net/tun",
        "load the kernel module tun: modprobe tun",
    );
    need(
        Path::new("/proc/self/ns/net").exists(),
        "the kernel has no network namespaces",
        "use a kernel with CONFIG_NET_NS",
    );
    need(
        nft_program().is_some(),
        "the program nft is not installed",
        "install the package nftables",
    );
    if root {
        let chains = Nft::open().and_then(|mut nft| nft.base_chains());
        need(
            chains.is_ok(),
            "the kernel has no nftables",
            "load the kernel module nf_tables, or use a kernel with CONFIG_NF_TABLES",
        );
        for chain in chains.unwrap_or_default() {
            let ipv4 = chain.family == super::nft::IPV4 || chain.family == INET;
            if chain.hook == FORWARD && chain.drops && ipv4 && table_mark(&chain.table).is_none() {
                lacks.push(foreign_drop(&chain.table, &chain.name));
            }
        }
    }
    lacks
}

fn foreign_drop(table: &str, chain: &str) -> Lack {
    Lack {
        what: format!(
            "chain {chain} of table {table} drops forwarded packets that it does not know, those of guests too"
        ),
        remedy: format!(
            "let the pool's addresses pass there, with Docker for example: \
             nft insert rule ip {table} DOCKER-USER ip saddr POOL accept, and the same with daddr"
        ),
        fatal: false,
    }
}

/// Where the program `nft` is.
pub(super) fn nft_program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(PROGRAM_DIRS.iter().map(PathBuf::from))
        .map(|dir| dir.join("nft"))
        .find(|program| {
            Command::new(program)
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        })
}

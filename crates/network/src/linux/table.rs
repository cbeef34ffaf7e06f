//! Loading the host's table.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use super::check::nft_program;
use crate::NetworkError;

/// Loads `text` with `nft`, as one transaction.
pub(super) fn load(table: &str, text: &str) -> Result<(), NetworkError> {
    let load = || {
        let program =
            nft_program().ok_or_else(|| io::Error::other("the program nft is not installed"))?;
        let mut nft = Command::new(program)
            .args(["--file", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = nft.stdin.take() {
            input.write_all(text.as_bytes())?;
        }
        let output = nft.wait_with_output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(
            said.lines().take(3).collect::<Vec<_>>().join("; "),
        ))
    };
    load().map_err(NetworkError::io("load nftables table", table))
}

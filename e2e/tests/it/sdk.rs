//! The public Python SDK against a real daemon.

use std::path::Path;
use std::process::Command;

use e2e::Daemon;

/// What is asked of the package index; the contract was read from this version.
const SDK: &str = "hypeman==0.28.0";

#[tokio::test]
async fn the_public_sdk_works() {
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hypeman-sdk");
    if let Err(why) = install(&library) {
        println!("skipped: the public SDK cannot be installed: {why}");
        return;
    }
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sdk.py");
    let mut command = Command::new("python3");
    command
        .arg(script)
        .env("PYTHONPATH", &library)
        .env("HYPEMAN_BASE_URL", daemon.url())
        .env("HYPEMAN_API_KEY", daemon.token(None));
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("no panic")
        .expect("python runs");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    daemon.expect_tidy().await;
}

/// Installs the SDK for this test alone, if that has not been done.
fn install(library: &Path) -> Result<(), String> {
    let done = library.join("installed");
    if done.exists() {
        return Ok(());
    }
    let output = Command::new("python3")
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
        ])
        .args(["--retries", "1", "--timeout", "10", "--upgrade", "--target"])
        .arg(library)
        .arg(SDK)
        .output()
        .map_err(|error| format!("python3: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(text.lines().last().unwrap_or("pip failed").to_owned());
    }
    std::fs::write(done, SDK).map_err(|error| error.to_string())
}

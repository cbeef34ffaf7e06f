//! Measures taking and giving back slots on this kernel, as a program of its own.
//!
//! Run it in namespaces of its own, so that nothing of the host is touched:
//! `unshare --net --mount slot_speed [ROUNDS]`. Prints one line of JSON, times in microseconds.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::time::{Duration, Instant};

use network::linux::{LinuxNetwork, remove_all};
use network::plan::Names;
use network::{Bandwidth, Config, Network, Policy};

/// Slots taken and given back in one round: a fan-out of the usual size.
const SLOTS: usize = 16;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let rounds = std::env::args()
        .nth(1)
        .map_or(Ok(20), |text| text.parse())?;
    tokio::runtime::Runtime::new()?.block_on(measure(rounds))
}

async fn measure(rounds: usize) -> Result<(), Failure> {
    let dir = std::env::temp_dir().join(format!("slot-speed-{}", std::process::id()));
    let mut config = Config::new("5105beed".parse()?, dir.clone());
    config.ready = 2 * SLOTS;
    let (network, _) = LinuxNetwork::open(config.clone(), vec![]).await?;
    let limited = Policy {
        bandwidth: Bandwidth {
            upload: Some(100_000_000),
            download: Some(100_000_000),
        },
        ..Policy::default()
    };
    let (plain, plain_back) = rounds_of(&network, rounds, &Policy::default()).await?;
    let (shaped, _) = rounds_of(&network, rounds.div_ceil(4), &limited).await?;
    network.close().await;
    remove_all(&Names::new(&config))?;
    std::fs::remove_dir_all(dir)?;
    println!(
        "{{\"take\":{},\"take_limited\":{},\"give_back\":{}}}",
        spread(plain),
        spread(shaped),
        spread(plain_back)
    );
    Ok(())
}

async fn rounds_of(
    network: &LinuxNetwork,
    rounds: usize,
    policy: &Policy,
) -> Result<(Vec<Duration>, Vec<Duration>), Failure> {
    let (mut taking, mut giving) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let deadline = Instant::now() + Duration::from_secs(60);
        while network.usage().ready < 2 * SLOTS {
            if Instant::now() > deadline {
                return Err("slots are not prepared within a minute".into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut slots = Vec::new();
        for _ in 0..SLOTS {
            let began = Instant::now();
            slots.push(network.take("bench", policy.clone()).await?.slot);
            taking.push(began.elapsed());
        }
        for slot in slots {
            let began = Instant::now();
            network.give_back(slot).await?;
            giving.push(began.elapsed());
        }
    }
    Ok((taking, giving))
}

/// Median, 99th percentile and count.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |percent: usize| {
        let last = times.len().saturating_sub(1);
        times
            .get(last * percent / 100)
            .copied()
            .unwrap_or_default()
            .as_micros()
    };
    format!(
        "{{\"p50\":{},\"p99\":{},\"count\":{}}}",
        at(50),
        at(99),
        times.len()
    )
}

//! Talking to the probe guest.

use std::time::Duration;

use hypervisor::{GuestStream, Vm, VmmError};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

/// For anything the guest is asked; it boots in 10 to 100 ms on an idle host.
const DEADLINE: Duration = Duration::from_secs(60);

/// RAM of a machine.
pub(crate) const RAM_BYTES: u64 = 128 << 20;

/// First page that the guest has no other use for.
pub(crate) const FREE_PAGE: u64 = 4096;

/// Pages from there on that a booted guest fills: as much memory as a small real one has.
pub(crate) const BALLAST_PAGES: u64 = 1024;

/// What they are filled with.
pub(crate) const BALLAST: u64 = 1;

/// Pages that one of two processors works on before it leaves as many to the other: half of what a pager gives at once,
/// so they meet at some faults and are apart at others.
pub(crate) const TURN: u64 = 8;

/// Most digits of one word that the guest keeps.
const WORD: usize = 400;

/// A line to the guest, for one question after the other.
pub(crate) struct Line(BufReader<GuestStream>);

impl Line {
    pub(crate) async fn to(vm: &dyn Vm) -> Result<Self, VmmError> {
        Ok(Self(BufReader::new(vm.dial(DEADLINE).await?)))
    }

    /// One line there, one line back.
    pub(crate) async fn ask(&mut self, command: &str) -> Result<String, VmmError> {
        let asked = async {
            self.0.write_all(format!("{command}\n").as_bytes()).await?;
            let mut answer = String::new();
            self.0.read_line(&mut answer).await?;
            Ok(answer)
        };
        let answer: Result<String, std::io::Error> =
            timeout(DEADLINE, asked)
                .await
                .map_err(|_| VmmError::Timeout {
                    what: "a command to the probe guest",
                    after: DEADLINE,
                })?;
        match answer {
            Ok(line) if line.ends_with('\n') => Ok(line.trim_end().to_owned()),
            other => Err(VmmError::Unusable {
                what: format!("{command}: {other:?} is no answer"),
            }),
        }
    }

    /// Puts bytes under a name into the guest's memory.
    pub(crate) async fn keep(&mut self, name: &str, bytes: &[u8]) -> Result<(), VmmError> {
        let digits = hex::encode(bytes);
        let words: Vec<&[u8]> = digits.as_bytes().chunks(WORD).collect();
        for (number, word) in words.iter().enumerate() {
            let word = String::from_utf8_lossy(word);
            let refused = self.ask(&format!("put ram {name}{number} {word}")).await?;
            assert_eq!(refused, "", "the guest has no room for {name}");
        }
        self.ask(&format!("put ram {name} {}", words.len())).await?;
        Ok(())
    }

    /// What was put under a name.
    pub(crate) async fn recall(&mut self, name: &str) -> Result<Vec<u8>, VmmError> {
        let count = self.ask(&format!("get ram {name}")).await?;
        let mut digits = String::new();
        for number in 0..count.parse::<usize>().unwrap_or(0) {
            digits += &self.ask(&format!("get ram {name}{number}")).await?;
        }
        hex::decode(digits).map_err(|error| VmmError::Unusable {
            what: format!("the guest does not remember {name}: {error}"),
        })
    }
}

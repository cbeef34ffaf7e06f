//! Everything a fake agent knows, in a form that can be saved.

use protocol::{ExitStatus, Failure, FailureKind, GuestPhase, Identity, ProgramExit, StartSpec};
use serde::{Deserialize, Serialize};

use super::files::Files;

/// Process id the fake program gets.
const PROGRAM: u32 = 100;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) phase: GuestPhase,
    pub(super) start: Option<StartSpec>,
    pub(super) identities: Vec<Identity>,
    pub(super) files: Files,
    pub(super) counter: u64,
    pub(super) hostname: String,
    random: u64,
    /// Text of the failure the next resume ends with.
    pub(super) fail_resume: Option<String>,
    pub(super) powered_off: bool,
    pub(super) frozen: bool,
    /// How often the machine rehearsed.
    pub(super) rehearsals: u64,
}

impl Default for State {
    fn default() -> Self {
        State {
            phase: GuestPhase::Waiting,
            start: None,
            identities: Vec::new(),
            files: Files::default(),
            counter: 0,
            hostname: "localhost".to_owned(),
            random: 0,
            fail_resume: None,
            powered_off: false,
            frozen: false,
            rehearsals: 0,
        }
    }
}

impl State {
    pub(super) fn start(&mut self, spec: StartSpec) -> Result<u32, Failure> {
        if self.phase != GuestPhase::Waiting {
            return Err(Failure::new(
                FailureKind::Phase,
                "a program was started before",
            ));
        }
        self.require_running()?;
        spec.validate()?;
        self.mix(&spec.entropy);
        self.hostname.clone_from(&spec.hostname);
        self.start = Some(spec);
        self.phase = GuestPhase::Started { pid: PROGRAM };
        Ok(PROGRAM)
    }

    pub(super) fn assume(&mut self, identity: Identity) -> Result<(), Failure> {
        self.require_started()?;
        identity.validate()?;
        if let Some(message) = self.fail_resume.take() {
            return Err(Failure::new(FailureKind::Io, message));
        }
        self.mix(&identity.entropy);
        self.hostname.clone_from(&identity.hostname);
        self.identities.push(identity);
        Ok(())
    }

    pub(super) fn rehearse(&mut self) -> Result<(), Failure> {
        self.require_started()?;
        match self.frozen {
            true => {
                self.rehearsals += 1;
                Ok(())
            }
            false => Err(Failure::new(
                FailureKind::Phase,
                "the machine is not frozen",
            )),
        }
    }

    pub(super) fn require_started(&self) -> Result<(), Failure> {
        match self.phase {
            GuestPhase::Waiting => Err(Failure::new(
                FailureKind::Phase,
                "no program was started yet",
            )),
            GuestPhase::Started { .. } | GuestPhase::Exited(_) => Ok(()),
        }
    }

    pub(super) fn require_running(&self) -> Result<(), Failure> {
        match self.frozen {
            true => Err(Failure::new(FailureKind::Phase, "the machine is frozen")),
            false => Ok(()),
        }
    }

    /// `None` when the program does not run.
    pub(super) fn end_program(&mut self, status: ExitStatus) -> Option<ProgramExit> {
        if !matches!(self.phase, GuestPhase::Started { .. }) {
            return None;
        }
        let message = status
            .signal
            .map(|signal| format!("killed by signal {signal}"));
        let exit = ProgramExit {
            code: status.code,
            signal: status.signal,
            message,
        };
        self.phase = GuestPhase::Exited(exit.clone());
        Some(exit)
    }

    /// Bytes that follow from the entropy received, as those of a kernel's generator would: without
    /// fresh entropy two copies of a state give the same.
    pub(super) fn random_bytes(&mut self) -> [u8; 16] {
        let halves = [self.next_random(), self.next_random()];
        let mut bytes = [0; 16];
        for (to, from) in bytes.chunks_exact_mut(8).zip(halves) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        bytes
    }

    /// FNV-1a; it only has to tell different entropy apart.
    fn mix(&mut self, entropy: &[u8]) {
        for byte in entropy {
            self.random =
                (self.random ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3) ^ 0xcbf2_9ce4;
        }
    }

    /// SplitMix64.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.random;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }
}

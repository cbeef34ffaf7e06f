//! What the VMM's driver tells the guest: words on the kernel command line.
//!
//! | word | meaning | without it |
//! |---|---|---|
//! | `coppice.agent=vsock` | the host connects to a vsock port | to a virtio-serial port |
//! | `coppice.poweroff=reset` | the VMM ends a machine that resets | it sees ACPI's power-off |

use std::io;

/// How the host reaches the agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Reach {
    #[default]
    SerialPort,
    Vsock,
}

/// What makes the VMM end the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum PowerOff {
    /// The kernel has a switch to turn.
    #[default]
    Acpi,
    /// There is none; a machine that switched itself off would stand still for ever. The command line
    /// names a way to reset that the VMM takes for the end (`reboot=k`).
    Reset,
}

/// The words that are for the agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) reach: Reach,
    pub(crate) power_off: PowerOff,
}

impl Words {
    /// Reads those of this guest. The proc file system must be mounted.
    pub(crate) fn read() -> io::Result<Self> {
        let line = std::fs::read_to_string("/proc/cmdline")?;
        Self::parse(&line).map_err(|word| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("kernel command line: {word} is not known"),
            )
        })
    }

    /// Takes what is for the agent from a kernel command line; the last of equal words counts, as it
    /// does for the kernel. A word of the agent's with a value that it does not know is the error: the
    /// host waits for something that this agent cannot do.
    fn parse(line: &str) -> Result<Self, &str> {
        let mut words = Self::default();
        for word in line
            .split_ascii_whitespace()
            .take_while(|word| *word != "--")
        {
            match word {
                "coppice.agent=serial" => words.reach = Reach::SerialPort,
                "coppice.agent=vsock" => words.reach = Reach::Vsock,
                "coppice.poweroff=acpi" => words.power_off = PowerOff::Acpi,
                "coppice.poweroff=reset" => words.power_off = PowerOff::Reset,
                _ if word.starts_with("coppice.agent=")
                    || word.starts_with("coppice.poweroff=") =>
                {
                    return Err(word);
                }
                _ => {}
            }
        }
        Ok(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VSOCK: Words = Words {
        reach: Reach::Vsock,
        power_off: PowerOff::Reset,
    };

    #[test]
    fn a_line_without_words_for_the_agent_is_that_of_a_machine_with_ports() {
        for line in ["", "console=ttyS0 reboot=t quiet\n", "acoppice.agent=vsock"] {
            assert_eq!(Words::parse(line), Ok(Words::default()), "{line}");
        }
    }

    #[test]
    fn words_are_found_among_others_and_the_last_one_counts() {
        for line in [
            "console=ttyS0 coppice.agent=vsock coppice.poweroff=reset",
            "coppice.poweroff=reset\tcoppice.agent=vsock root=/dev/vda ro virtio_mmio.device=4K@0xd0000000:5\n",
            "coppice.agent=serial coppice.poweroff=reset coppice.agent=vsock",
        ] {
            assert_eq!(Words::parse(line), Ok(VSOCK), "{line}");
        }
        let last = Words::parse("coppice.agent=vsock coppice.poweroff=reset coppice.poweroff=acpi");
        assert_eq!(last.map(|words| words.power_off), Ok(PowerOff::Acpi));
    }

    #[test]
    fn what_follows_two_dashes_is_for_programs() {
        assert_eq!(
            Words::parse("quiet -- coppice.agent=vsock"),
            Ok(Words::default())
        );
    }

    #[test]
    fn a_value_that_is_not_known_is_refused() {
        for word in [
            "coppice.agent=",
            "coppice.agent=tcp",
            "coppice.poweroff=halt",
        ] {
            assert_eq!(Words::parse(&format!("quiet {word} ro")), Err(word));
        }
    }
}

//! Randomness from the host's kernel.

use model::{ImageId, InstanceId};

/// Bytes of entropy that a guest is given with each new identity: twice what the
/// kernel's generator needs to be seeded in full.
const GUEST_ENTROPY: usize = 64;

fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The kernel's generator only fails before it is first seeded, early in the host's
    // boot; a daemon that went on without it would give forks the same random bytes.
    getrandom::fill(&mut bytes).expect("the host's random number generator works");
    bytes
}

/// A new instance id.
pub(crate) fn instance_id() -> InstanceId {
    InstanceId::from_entropy(bytes())
}

/// A new memory image id.
pub(crate) fn image_id() -> ImageId {
    ImageId::from_entropy(bytes())
}

/// A text that names a temporary file as nobody else does.
pub(crate) fn id_text() -> String {
    instance_id().to_string()
}

/// What everything that is made on the host for one data directory has in its name.
pub(crate) fn mark() -> String {
    bytes::<4>().map(|byte| format!("{byte:02x}")).concat()
}

/// Fresh entropy for a guest.
pub(crate) fn for_guest() -> Vec<u8> {
    bytes::<GUEST_ENTROPY>().to_vec()
}

/// A new signing secret.
pub(crate) fn secret() -> [u8; 32] {
    bytes()
}

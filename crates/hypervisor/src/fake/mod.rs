//! A driver without machines: a VM is a pair of tasks in this process, its guest is given by the test.
//!
//! Honest where it matters to callers: machines outlive the driver and are adopted by the next one on the same
//! [`FakeHost`], a paused guest does not move, captures write real memory images (diffs included) that are checked
//! when they are restored, and any operation can be made to fail or to wait for the test.

mod driver;
mod guest;
mod hooks;
mod host;
mod machine;
mod mapped;
mod memory_image;
mod paged;
mod vm;

pub use driver::FakeDriver;
pub use guest::{FakeGuest, FakeHardware, GuestMaker, PowerSwitch};
pub use hooks::{Held, Operation};
pub use host::FakeHost;

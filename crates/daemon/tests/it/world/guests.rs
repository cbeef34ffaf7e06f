//! Guest's fake agent as the software of hypervisor's fake machines.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use guest::fake::FakeAgent;
use hypervisor::GuestStream;
use hypervisor::fake::{FakeGuest, FakeHardware, GuestMaker};

use super::machines::Machines;

/// Makes a fake agent for each machine and keeps a hand on it for the test.
pub(super) struct Agents(pub(super) Arc<Machines>);

impl GuestMaker for Agents {
    fn make(&self, hardware: FakeHardware) -> Arc<dyn FakeGuest> {
        let agent = FakeAgent::new();
        self.0.set_agent(&hardware.name, agent.clone());
        Arc::new(Guest {
            agent: Mutex::new(agent),
            hardware,
            machines: Arc::clone(&self.0),
        })
    }
}

struct Guest {
    agent: Mutex<FakeAgent>,
    hardware: FakeHardware,
    machines: Arc<Machines>,
}

impl Guest {
    fn agent(&self) -> FakeAgent {
        self.agent.lock().unwrap().clone()
    }
}

#[async_trait]
impl FakeGuest for Guest {
    async fn serve(&self, stream: GuestStream) {
        self.agent().serve(stream).await;
    }

    fn heard(&self) {
        if self.agent().is_powered_off() {
            self.hardware.power.off();
        }
    }

    fn save(&self) -> Vec<u8> {
        self.agent().save()
    }

    fn load(&self, ram: &[u8]) {
        let agent = FakeAgent::load(ram).unwrap();
        self.machines.set_agent(&self.hardware.name, agent.clone());
        *self.agent.lock().unwrap() = agent;
    }
}

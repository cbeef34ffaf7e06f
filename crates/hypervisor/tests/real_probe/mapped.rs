//! How long forks take that map the image, with hot pages and without.

use std::sync::Arc;
use std::time::Instant;

use hypervisor::RamUse;
use hypervisor::conformance::{DEADLINE, Rig, Subject};
use memory::{Image, Run};
use serde_json::{Value, json};

use crate::extra::tag;
use crate::speed::{WORK_PAGES, ms, work};

/// When a fork gets hot pages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// Never.
    Never,
    /// As soon as it runs, beside its work.
    Beside,
    /// Before its work, as one that is prepared.
    Before,
}

/// Forks that map the image, and what they took.
struct Mapped {
    when: When,
    hot: Vec<Run>,
    verify: Vec<f64>,
    whole: Vec<f64>,
    faults: Vec<u64>,
    entering: Vec<f64>,
}

impl Mapped {
    fn new(when: When, hot: Vec<Run>) -> Self {
        Self {
            when,
            hot,
            verify: Vec::new(),
            whole: Vec::new(),
            faults: Vec::new(),
            entering: Vec::new(),
        }
    }

    async fn measure(&mut self, rig: &Rig<'_>, image: &Image) {
        let began = Instant::now();
        let fork = rig.restore(image, RamUse::Fork).await;
        let (vm, hot) = (Arc::clone(&fork.vm), self.hot.clone());
        let enter = async move {
            let began = Instant::now();
            let ram = vm.mapped_ram().unwrap();
            ram.enter(hot, DEADLINE).await.unwrap();
            ms(began.elapsed())
        };
        let mut beside = None;
        match self.when {
            When::Never => {}
            When::Beside => beside = Some(tokio::spawn(enter)),
            When::Before => self.entering.push(enter.await),
        }
        self.verify.push(work(&fork).await);
        self.whole.push(ms(began.elapsed()));
        if let Some(beside) = beside {
            self.entering.push(beside.await.unwrap());
        }
        let memory = fork.vm.memory().unwrap().report().await.unwrap();
        self.faults.push(memory.page_faults);
        fork.vm.kill().await.unwrap();
    }

    /// All but the first of each, which warmed caches.
    fn figures(&self) -> Value {
        json!({
            "verify": self.verify[1..],
            "whole": self.whole[1..],
            "faults": self.faults[1..],
            "entering": self.entering.get(1..).unwrap_or_default(),
        })
    }
}

/// What a fork touches that works through its pages.
async fn hot_pages(rig: &Rig<'_>, image: &Image) -> Vec<Run> {
    let fork = rig.restore(image, RamUse::Fork).await;
    work(&fork).await;
    let touched = fork.vm.mapped_ram().unwrap().touched().await.unwrap();
    fork.vm.kill().await.unwrap();
    touched
}

/// All of it in turn, on any VMM.
pub(crate) async fn measure(subject: &dyn Subject, rounds: usize) -> Value {
    let rig = Rig::new(subject).await;
    let machine = rig.launch().await;
    tag(&machine, 0, WORK_PAGES, 1).await;
    let image = rig.standby(machine).await.image;
    let _hold = rig.driver.templates().unwrap().hold(image.dir()).await;
    let hot = hot_pages(&rig, &image).await;
    let ways = [When::Never, When::Beside, When::Before];
    let mut ways = ways.map(|when| Mapped::new(when, hot.clone()));
    for _ in 0..=rounds {
        for way in &mut ways {
            way.measure(&rig, &image).await;
        }
    }
    let [file, beside, before] = ways;
    json!({ "file": file.figures(), "beside": beside.figures(), "before": before.figures() })
}

//! The VMMs of this host, by name. What an instance runs on is said by its record; whether
//! that VMM is here at this moment is said here.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use hypervisor::{Driver, Vm, VmmError};

use super::OpError;

/// Every VMM that the daemon knows how to drive, with a driver or with the reason why there
/// is none.
pub struct Drivers {
    default: String,
    known: BTreeMap<String, Known>,
}

enum Known {
    Here(Arc<dyn Driver>),
    Missing(String),
}

impl Drivers {
    /// No VMM yet; `default` names the one of instances that ask for none.
    #[must_use]
    pub fn new(default: impl Into<String>) -> Self {
        Self {
            default: default.into(),
            known: BTreeMap::new(),
        }
    }

    /// With a VMM of this host, known by the name that its driver gives itself.
    #[must_use]
    pub fn with(mut self, driver: Arc<dyn Driver>) -> Self {
        let name = driver.identity().name.clone();
        self.known.insert(name, Known::Here(driver));
        self
    }

    /// With a VMM that this host cannot run; `why` says what is to be done.
    #[must_use]
    pub fn without(mut self, name: impl Into<String>, why: impl Into<String>) -> Self {
        self.known.insert(name.into(), Known::Missing(why.into()));
        self
    }

    /// The VMM of instances that ask for none.
    #[must_use]
    pub fn default_name(&self) -> &str {
        &self.default
    }

    /// Every known VMM by name, sorted, with its driver or why there is none.
    pub fn all(&self) -> impl Iterator<Item = (&str, Result<&Arc<dyn Driver>, &str>)> {
        self.known.iter().map(|(name, known)| {
            let driver = match known {
                Known::Here(driver) => Ok(driver),
                Known::Missing(why) => Err(why.as_str()),
            };
            (name.as_str(), driver)
        })
    }

    /// The driver of the VMM of this name.
    pub fn named(&self, name: &str) -> Result<&Arc<dyn Driver>, OpError> {
        let why = match self.known.get(name) {
            Some(Known::Here(driver)) => return Ok(driver),
            Some(Known::Missing(why)) => why.clone(),
            None => "this version of coppiced does not drive it".to_owned(),
        };
        Err(OpError::NoVmm {
            name: name.to_owned(),
            why,
        })
    }

    /// Finds the machine that runs in `run_dir` on the VMM of this name.
    pub(super) async fn adopt(
        &self,
        name: &str,
        run_dir: &Path,
    ) -> Result<Option<Arc<dyn Vm>>, OpError> {
        match self.named(name) {
            Ok(driver) => Ok(driver.adopt(run_dir).await?),
            // A VMM that is gone from the host does not keep what does not run from being
            // looked at, or deleted.
            Err(_) if !hypervisor::is_running(run_dir) => Ok(None),
            Err(missing) => Err(missing),
        }
    }

    /// Finds the machine that runs in `run_dir` where no record says on which VMM.
    pub(super) async fn adopt_any(&self, run_dir: &Path) -> Result<Option<Arc<dyn Vm>>, OpError> {
        let mut foreign = None;
        for (_, driver) in self.all() {
            let Ok(driver) = driver else { continue };
            match driver.adopt(run_dir).await {
                Ok(Some(vm)) => return Ok(Some(vm)),
                Ok(None) => {}
                Err(VmmError::Foreign { owner }) => foreign = Some(owner),
                Err(error) => return Err(error.into()),
            }
        }
        match foreign {
            Some(owner) => Err(self.named(&owner).err().unwrap_or(OpError::NotFound)),
            None => Ok(None),
        }
    }
}

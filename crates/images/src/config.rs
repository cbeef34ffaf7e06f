//! What an image says about how to run it.

use std::collections::BTreeMap;

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

/// How to run an image, as far as guests honour it. Part of the store's record on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Default arguments, or the program if there is no entrypoint.
    pub cmd: Vec<String>,
    /// Environment, each `NAME=value`.
    pub env: Vec<String>,
    /// Directory to start in. Empty: the root directory.
    pub working_dir: String,
    /// `user[:group]` by name or number. Empty: root.
    pub user: String,
    /// Signal that asks the program to stop, such as `SIGQUIT`. None: SIGTERM.
    pub stop_signal: Option<String>,
    /// Free-form labels.
    pub labels: BTreeMap<String, String>,
    /// Ports the program listens on, such as `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// What the image runs on.
    pub platform: Platform,
}

/// An operating system and a processor architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Platform {
    /// Operating system in the words of Go: `linux`.
    pub os: String,
    /// Architecture in the words of Go: `amd64`.
    pub architecture: String,
}

impl Default for Platform {
    /// What guests are.
    fn default() -> Self {
        Self {
            os: "linux".into(),
            architecture: "amd64".into(),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

impl From<&ImageConfiguration> for ImageConfig {
    fn from(configuration: &ImageConfiguration) -> Self {
        let platform = Platform {
            os: configuration.os().to_string(),
            architecture: configuration.architecture().to_string(),
        };
        let Some(config) = configuration.config() else {
            return Self {
                platform,
                ..Self::default()
            };
        };
        let list = |value: &Option<Vec<String>>| value.clone().unwrap_or_default();
        let mut exposed_ports = list(config.exposed_ports());
        exposed_ports.sort();
        Self {
            entrypoint: list(config.entrypoint()),
            cmd: list(config.cmd()),
            env: list(config.env()),
            working_dir: config.working_dir().clone().unwrap_or_default(),
            user: config.user().clone().unwrap_or_default(),
            stop_signal: config.stop_signal().clone(),
            labels: config
                .labels()
                .clone()
                .unwrap_or_default()
                .into_iter()
                .collect(),
            exposed_ports,
            platform,
        }
    }
}

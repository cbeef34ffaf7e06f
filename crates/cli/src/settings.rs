//! From arguments and environment to one complete set of values.

use std::fs;
use std::path::{Path, PathBuf};

use api::client::{Address, Client};

use crate::args::GlobalArgs;
use crate::failure::Failure;
use crate::printer::Format;

/// Socket of a daemon with the default data directory.
const DEFAULT_SOCKET: &str = "/var/lib/coppice/coppiced.sock";

/// Address that a daemon listens at by default.
const DEFAULT_URL: &str = "http://127.0.0.1:4973";

/// What every command needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) address: Address,
    pub(crate) token: Option<String>,
    pub(crate) format: Format,
}

/// What settings are made from, besides arguments.
pub(crate) trait Surroundings {
    fn variable(&self, name: &str) -> Option<String>;
    fn exists(&self, path: &Path) -> bool;
    fn read(&self, path: &Path) -> std::io::Result<String>;
}

/// The process and the machine it runs on.
pub(crate) struct Here;

impl Surroundings for Here {
    /// An empty variable counts as none, as in shells' `${X:-}`.
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn read(&self, path: &Path) -> std::io::Result<String> {
        fs::read_to_string(path)
    }
}

impl Settings {
    pub(crate) fn resolve(args: &GlobalArgs, around: &impl Surroundings) -> Result<Self, Failure> {
        Ok(Self {
            address: address(args.host.as_deref(), around)?,
            token: token(args.token_file.as_ref(), around)?,
            format: if args.json {
                Format::Json
            } else {
                Format::People
            },
        })
    }

    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(self.address.clone(), self.token.as_deref())?)
    }
}

fn address(host: Option<&str>, around: &impl Surroundings) -> Result<Address, Failure> {
    let named = host
        .map(str::to_owned)
        .or_else(|| around.variable("COPPICE_HOST"))
        .or_else(|| around.variable("HYPEMAN_BASE_URL"));
    match named {
        Some(text) => text
            .parse()
            .map_err(|error: api::client::ClientError| Failure::usage(error.to_string())),
        None if around.exists(Path::new(DEFAULT_SOCKET)) => {
            Ok(Address::Unix(DEFAULT_SOCKET.into()))
        }
        None => Ok(DEFAULT_URL.parse()?),
    }
}

fn token(file: Option<&PathBuf>, around: &impl Surroundings) -> Result<Option<String>, Failure> {
    if let Some(path) = file {
        let text = around.read(path).map_err(|error| {
            Failure::local(
                format!("cannot read the token in {}", path.display()),
                error,
            )
        })?;
        return Ok(Some(text.trim().to_owned()));
    }
    Ok(around
        .variable("COPPICE_TOKEN")
        .or_else(|| around.variable("HYPEMAN_API_KEY")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    struct Made {
        variables: HashMap<&'static str, &'static str>,
        socket: bool,
    }

    impl Surroundings for Made {
        fn variable(&self, name: &str) -> Option<String> {
            self.variables.get(name).map(|value| (*value).to_owned())
        }

        fn exists(&self, _: &Path) -> bool {
            self.socket
        }

        fn read(&self, path: &Path) -> std::io::Result<String> {
            Ok(format!("from {}\n", path.display()))
        }
    }

    fn check(
        args: &GlobalArgs,
        variables: &[(&'static str, &'static str)],
        socket: bool,
    ) -> (String, Option<String>) {
        let around = Made {
            variables: variables.iter().copied().collect(),
            socket,
        };
        let settings = Settings::resolve(args, &around).expect("good settings");
        (settings.address.to_string(), settings.token)
    }

    #[test]
    fn the_nearest_word_wins() {
        let none = GlobalArgs::default();
        let both = GlobalArgs {
            host: Some("http://args".to_owned()),
            token_file: Some("file".into()),
            json: false,
        };
        let coppice = [("COPPICE_HOST", "http://c"), ("COPPICE_TOKEN", "ct")];
        let public = [("HYPEMAN_BASE_URL", "http://h"), ("HYPEMAN_API_KEY", "hk")];
        let all = [coppice, public].concat();
        let pair =
            |address: &str, token: Option<&str>| (address.to_owned(), token.map(str::to_owned));

        assert_eq!(check(&none, &[], false), pair(DEFAULT_URL, None));
        assert_eq!(
            check(&none, &[], true),
            pair("unix:///var/lib/coppice/coppiced.sock", None)
        );
        assert_eq!(check(&none, &public, true), pair("http://h", Some("hk")));
        assert_eq!(check(&none, &all, true), pair("http://c", Some("ct")));
        assert_eq!(
            check(&both, &all, true),
            pair("http://args", Some("from file"))
        );
    }
}

//! Where a server listens.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use reqwest::Url;

use super::ClientError;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `http://host:port`, with an optional path that all requests begin with.
    Tcp(Url),
    /// `unix:///path/of/the/socket`.
    Unix(PathBuf),
}

impl Address {
    /// The URL that paths are appended to. The host of a unix socket's URL is
    /// a filler that HTTP asks for.
    pub(super) fn base(&self) -> Url {
        match self {
            Self::Tcp(url) => url.clone(),
            Self::Unix(_) =>
            {
                #[expect(clippy::unwrap_used, reason = "a constant that is a valid URL")]
                Url::parse("http://localhost/").unwrap()
            }
        }
    }
}

impl FromStr for Address {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |reason| ClientError::Address {
            address: text.to_owned(),
            reason,
        };
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err(refuse("the path of a unix socket must be absolute"))
            };
        }
        let url = Url::parse(text).map_err(|_| refuse("it is not a URL"))?;
        match url.scheme() {
            "http" if url.has_host() => Ok(Self::Tcp(url)),
            "https" => Err(refuse(
                "this build speaks no TLS; use a tunnel or a unix socket",
            )),
            _ => Err(refuse("it must begin with http:// or unix://")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(url) => f.write_str(url.as_str().trim_end_matches('/')),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_it_reads() {
        for text in [
            "http://127.0.0.1:4973",
            "http://host/prefix",
            "unix:///var/lib/coppice/coppiced.sock",
        ] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn refuses_what_it_cannot_reach() {
        for text in [
            "",
            "localhost:4973",
            "https://host",
            "unix://relative",
            "ftp://host",
        ] {
            text.parse::<Address>().expect_err(text);
        }
    }
}

//! Arguments of the ingress commands.

use clap::{Args, Subcommand};

use crate::words::{Pair, parse_pair};

#[derive(Debug, Subcommand)]
pub(crate) enum IngressCommand {
    /// Lead requests for a host name to an instance
    Create(IngressCreateArgs),
    /// List ingresses
    Ls,
    /// Show all about ingresses
    Inspect(IngressesArgs),
    /// Remove ingresses; connections that are open go on for a while
    Rm(IngressesArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
A host name may take the instance's name from the request: with `--hostname '{instance}.example.com'
--to '{instance}:8080'` a request for web.example.com goes to the instance web.

--tls needs a certificate for the host name among those of the daemon: NAME.crt and NAME.key in its
directory `certificates`.")]
pub(crate) struct IngressCreateArgs {
    /// Name of the ingress
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Host name of the requests, or a pattern with one capture
    #[arg(long, value_name = "HOSTNAME")]
    pub(crate) hostname: String,
    /// Instance and its port
    #[arg(long, value_name = "INSTANCE:PORT", value_parser = parse_target)]
    pub(crate) to: Target,
    /// Port of the host [default: 80, with --tls 443]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Clients speak TLS
    #[arg(long)]
    pub(crate) tls: bool,
    /// Send clients that do not speak TLS to the same address with it
    #[arg(long, requires = "tls")]
    pub(crate) redirect_http: bool,
    /// Wake the instance from standby when a request comes, and hold the request until it answers
    #[arg(long)]
    pub(crate) wake: bool,
    /// Refuse requests without this header; its value, 32 characters at least, comes from a variable or a file
    #[arg(long, value_name = "HEADER=env:VARIABLE|file:PATH")]
    pub(crate) header_auth: Option<String>,
    /// Label it
    #[arg(short = 'l', long = "tag", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) tags: Vec<Pair>,
}

#[derive(Debug, Args)]
pub(crate) struct IngressesArgs {
    /// Ingresses
    #[arg(required = true, value_name = "INGRESS")]
    pub(crate) ingresses: Vec<String>,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) instance: String,
    pub(crate) port: u16,
}

fn parse_target(text: &str) -> Result<Target, String> {
    match text.rsplit_once(':') {
        Some((instance, port)) if !instance.is_empty() => Ok(Target {
            instance: instance.to_owned(),
            port: crate::ports::number(port)?,
        }),
        _ => Err("give the instance and its port, as in web:8080".to_owned()),
    }
}

//! `ingress create`: lead requests for a host name to an instance.

use std::path::Path;

use api::client::Client;
use api::ingresses::{
    CreateIngressRequest, IngressMatch, IngressRule, IngressTarget, RequestHeaderAuth,
};

use crate::args::IngressCreateArgs;
use crate::explain;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::{Here, Surroundings};
use crate::words;

/// Ports that clients use when their address names none.
const HTTP: u16 = 80;
const HTTPS: u16 = 443;

pub(crate) async fn create(
    client: &Client,
    printer: &Printer,
    args: IngressCreateArgs,
) -> Result<(), Failure> {
    let request = request(args, &Here)?;
    let ingress = client
        .create_ingress(&request)
        .await
        .map_err(|error| explain::ingress(&request.name, error))?;
    Ok(printer.show(&ingress, |ingress| ingress.name.clone())?)
}

fn request(
    args: IngressCreateArgs,
    around: &impl Surroundings,
) -> Result<CreateIngressRequest, Failure> {
    let tags = words::tags(&args.tags)?;
    let usual = if args.tls { HTTPS } else { HTTP };
    let auth = args.header_auth.map(|text| header_auth(&text, around));
    let rule = IngressRule {
        matches: IngressMatch {
            hostname: args.hostname,
            port: args.port.unwrap_or(usual),
        },
        target: IngressTarget {
            instance: args.to.instance,
            port: args.to.port,
        },
        tls: args.tls,
        redirect_http: args.redirect_http,
        request_header_auth: auth.transpose()?,
        wake: args.wake,
    };
    Ok(CreateIngressRequest {
        name: args.name,
        rules: vec![rule],
        tags: (!tags.is_empty()).then_some(tags),
    })
}

/// Reads the secret from where `HEADER=env:VARIABLE` or `HEADER=file:PATH` says. No error repeats
/// the words, for somebody may have written the secret itself.
fn header_auth(text: &str, around: &impl Surroundings) -> Result<RequestHeaderAuth, Failure> {
    let unclear = || {
        Failure::usage("--header-auth is HEADER=env:VARIABLE or HEADER=file:PATH")
            .hint("the value is not given here, where other users of this machine could read it")
    };
    let (header, source) = text.split_once('=').ok_or_else(unclear)?;
    if header.is_empty() {
        return Err(unclear());
    }
    let value = match source.split_once(':') {
        Some(("env", name)) => around
            .variable(name)
            .ok_or_else(|| Failure::usage(format!("the variable {name:?} is not set")))?,
        Some(("file", path)) => around.read(Path::new(path)).map_err(|error| {
            Failure::local(format!("cannot read the header's value in {path}"), error)
        })?,
        _ => return Err(unclear()),
    };
    Ok(RequestHeaderAuth {
        header: header.to_owned(),
        value: value.trim_end_matches(['\r', '\n']).to_owned(),
    })
}

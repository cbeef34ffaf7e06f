//! The pager's program.
//!
//! It opens the image while it still may, takes its listening socket from standard input, gives up every privilege,
//! and serves. It has one thread, and no file is opened afterwards.

mod answer;
mod connection;
mod daemons;
mod harden;
mod machine;
mod poller;
mod server;
mod spec;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::process::ExitCode;

use memory::Image;

use crate::source::LayerFiles;
use crate::sys;
use server::Server;
pub use spec::Settings;
pub(crate) use spec::Spec;

/// In place of the argument: gives up its rights, and ends. A number after it is the user to become.
pub(crate) const CHECK: &str = "check";

/// Runs a pager; `arguments` are those after the program's name and the word that asks for this role. Returns when
/// there is nothing left to serve.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let argument = arguments.next().unwrap_or_default();
    if argument == CHECK {
        return match check(arguments.next()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = io::stderr().write_all(error.as_bytes());
                ExitCode::FAILURE
            }
        };
    }
    // The daemon gives a log as standard error.
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    match run(&argument) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "pager ends");
            ExitCode::FAILURE
        }
    }
}

/// Gives up what pagers give up, and ends.
fn check(uid: Option<OsString>) -> Result<(), String> {
    let number = |uid: OsString| uid.to_str().and_then(|uid| uid.parse().ok());
    let uid = uid
        .map(|uid| number(uid).ok_or("a user is a number"))
        .transpose()?;
    harden::confine(uid)
}

fn run(argument: &OsStr) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    sys::close_inherited().map_err(text)?;
    // The program's file may be that of a daemon, with any name. Only lists of processes show this.
    let _ = rustix::thread::set_name(c"coppice-pager");
    let spec: Spec = serde_json::from_slice(argument.as_encoded_bytes())
        .map_err(|error| format!("a pager is started by its daemon, with one argument: {error}"))?;
    spec.settings.check()?;
    let listener = io::stdin().as_fd().try_clone_to_owned().map_err(text)?;
    // An interrupt at the daemon's terminal is not meant for what outlives it.
    let _ = rustix::process::setsid();
    let image = Image::open(&spec.image_dir).map_err(|error| error.to_string())?;
    let files =
        LayerFiles::open(&image, spec.settings.cache_bytes).map_err(|error| error.to_string())?;
    let image_id = image.manifest().image_id.clone();
    let mut server =
        Server::new(listener, spec.owner_uid, image_id, files, spec.settings).map_err(text)?;
    harden::confine(spec.uid)?;
    server.run().map_err(text)
}

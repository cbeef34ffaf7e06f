//! Out of a guest: one stream of entries, written as they come.

use std::fs;
use std::path::{Path, PathBuf};

use api::client::{Client, DownloadEvent};

use super::Copied;
use super::extract::Extractor;
use super::place::GuestPlace;
use crate::explain::{self, Deed};
use crate::failure::Failure;
use crate::printer::Printer;

pub(super) async fn download(
    client: &Client,
    printer: &Printer,
    from: &GuestPlace,
    to: &Path,
    follow: bool,
) -> Result<Copied, Failure> {
    let Some(name) = from.file_name() else {
        return Err(
            Failure::usage(format!("{:?} has no name to be copied under", from.path))
                .hint("copy the directories in it one by one"),
        );
    };
    let target = target(to, name)?;
    let mut stream = match client.download(&from.instance, &from.path, follow).await {
        Ok(stream) => stream,
        Err(error) => {
            return Err(explain::instance(client, &from.instance, Deed::Inside, error).await);
        }
    };
    let progress = printer.bytes_bar(format!("copying from {}", from.instance), None);
    let mut extractor = Extractor::new(target);
    while let Some(event) = stream.next().await? {
        match event {
            DownloadEvent::Entry(header) => {
                progress.say(header.path.clone());
                extractor.begin(&header)?;
            }
            DownloadEvent::Data(data) => {
                progress.advance(data.len() as u64);
                extractor.write(&data)?;
            }
            DownloadEvent::EntryEnd => extractor.end()?,
        }
    }
    extractor.finish()
}

/// Where the source goes: into a directory under its own name, else to exactly
/// the path that was given.
fn target(to: &Path, name: &str) -> Result<PathBuf, Failure> {
    let is_dir = fs::metadata(to).is_ok_and(|metadata| metadata.is_dir());
    if is_dir {
        return Ok(to.join(name));
    }
    if to.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(Failure::plain(format!(
            "there is no directory {}",
            to.display()
        )));
    }
    Ok(to.to_owned())
}

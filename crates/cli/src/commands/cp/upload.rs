//! From here into a guest: one call for each entry, parents before children.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use api::client::{Client, ClientError, Upload};
use api::instances::{PathInfo, StatQuery};

use super::Copied;
use super::place::GuestPlace;
use crate::explain::{self, Deed};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::progress::Progress;

/// Bits that the guest is asked to set.
const MODE_BITS: u32 = 0o7777;

pub(super) async fn upload(
    client: &Client,
    printer: &Printer,
    from: &Path,
    to: &GuestPlace,
    follow: bool,
) -> Result<Copied, Failure> {
    let found = look(client, to).await?;
    let metadata = fs::metadata(from).map_err(|error| unreadable(from, error))?;
    let target = target(from, metadata.is_dir(), to, &found)?;
    let progress = printer.bytes_bar(format!("copying to {}", to.instance), None);
    let mut sender = Sender {
        client,
        printer,
        progress,
        follow,
        copied: Copied::default(),
    };
    let mut todo = vec![Entry {
        path: from.to_owned(),
        target,
        above: Vec::new(),
    }];
    while let Some(entry) = todo.pop() {
        // Children are pushed in reverse, so that they are sent by name.
        todo.extend(sender.send(entry).await?.into_iter().rev());
    }
    Ok(sender.copied)
}

async fn look(client: &Client, to: &GuestPlace) -> Result<PathInfo, Failure> {
    let query = StatQuery {
        path: to.path.clone(),
        follow_links: Some(true),
    };
    match client.stat(&to.instance, &query).await {
        Ok(found) => Ok(found),
        Err(error) => Err(explain::instance(client, &to.instance, Deed::Inside, error).await),
    }
}

/// Where the source goes: into a directory under its own name, else to exactly
/// the path that was given.
fn target(
    from: &Path,
    from_is_dir: bool,
    to: &GuestPlace,
    found: &PathInfo,
) -> Result<GuestPlace, Failure> {
    if found.is_dir == Some(true) {
        // `.` and `..` have names too, once they are resolved.
        let resolved = fs::canonicalize(from).map_err(|error| unreadable(from, error))?;
        let name = from.file_name().or(resolved.file_name());
        return match name.and_then(|name| name.to_str()) {
            Some(name) => Ok(to.join(name)),
            None => Err(Failure::usage(format!(
                "{} has no name to be copied under",
                from.display()
            ))),
        };
    }
    if found.exists && from_is_dir {
        return Err(Failure::plain(format!(
            "{} is a directory, {}:{} is not",
            from.display(),
            to.instance,
            to.path
        )));
    }
    if to.wants_directory() && !from_is_dir {
        return Err(Failure::plain(format!(
            "there is no directory {}:{}",
            to.instance, to.path
        )));
    }
    Ok(to.clone())
}

/// Something to send.
struct Entry {
    path: PathBuf,
    target: GuestPlace,
    /// Device and inode of the directories above, to notice circles of links.
    above: Vec<(u64, u64)>,
}

struct Sender<'a> {
    client: &'a Client,
    printer: &'a Printer,
    progress: Progress,
    follow: bool,
    copied: Copied,
}

impl Sender<'_> {
    /// Sends an entry and gives what is below it.
    async fn send(&mut self, entry: Entry) -> Result<Vec<Entry>, Failure> {
        let Entry {
            path,
            target,
            above,
        } = entry;
        let Ok(metadata) = fs::metadata(&path) else {
            self.skip(&path, "it leads nowhere");
            return Ok(Vec::new());
        };
        if metadata.is_file() {
            self.file(&path, &target, &metadata).await?;
            return Ok(Vec::new());
        }
        if !metadata.is_dir() {
            self.skip(&path, "it is neither a file nor a directory");
            return Ok(Vec::new());
        }
        let own = (metadata.dev(), metadata.ino());
        if above.contains(&own) {
            self.skip(&path, "it leads back to a directory above");
            return Ok(Vec::new());
        }
        // The first entry was named by the user, who means what it leads to.
        if !above.is_empty() && path.is_symlink() && !self.follow {
            self.skip(&path, "it leads to a directory; -L copies it");
            return Ok(Vec::new());
        }
        self.directory(&target, &metadata).await?;
        let above: Vec<_> = above.into_iter().chain([own]).collect();
        children(&path, &target, &above)
    }

    async fn file(
        &mut self,
        path: &Path,
        target: &GuestPlace,
        metadata: &Metadata,
    ) -> Result<(), Failure> {
        let file = tokio::fs::File::open(path)
            .await
            .map_err(|error| unreadable(path, error))?;
        let progress = &self.progress;
        progress.say(path.display().to_string());
        let written = self
            .client
            .upload_file(&target.instance, &order(target, metadata), file, |count| {
                progress.advance(count);
            })
            .await
            .map_err(|error| refused(target, error))?;
        self.copied.files += 1;
        self.copied.bytes += written;
        Ok(())
    }

    async fn directory(&mut self, target: &GuestPlace, metadata: &Metadata) -> Result<(), Failure> {
        self.client
            .upload_directory(&target.instance, &order(target, metadata))
            .await
            .map_err(|error| refused(target, error))?;
        self.copied.directories += 1;
        Ok(())
    }

    fn skip(&self, path: &Path, reason: &str) {
        self.printer
            .remark(&format!("warning: left out {}: {reason}", path.display()));
    }
}

fn order(target: &GuestPlace, metadata: &Metadata) -> Upload {
    Upload {
        guest_path: target.path.clone(),
        mode: metadata.permissions().mode() & MODE_BITS,
        owner: None,
    }
}

fn children(path: &Path, target: &GuestPlace, above: &[(u64, u64)]) -> Result<Vec<Entry>, Failure> {
    let mut entries = Vec::new();
    for child in fs::read_dir(path).map_err(|error| unreadable(path, error))? {
        let child = child.map_err(|error| unreadable(path, error))?;
        let name = child.file_name();
        let name = name
            .to_str()
            .ok_or_else(|| Failure::plain(format!("{} is not UTF-8", child.path().display())))?;
        entries.push(Entry {
            path: child.path(),
            target: target.join(name),
            above: above.to_vec(),
        });
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// A guest says what is wrong, and not always with which of many files.
fn refused(target: &GuestPlace, error: ClientError) -> Failure {
    match error {
        ClientError::Ended(reason) => Failure::plain(format!(
            "cannot write {}:{}: {reason}",
            target.instance, target.path
        )),
        error => error.into(),
    }
}

fn unreadable(path: &Path, error: std::io::Error) -> Failure {
    Failure::local(format!("cannot read {}", path.display()), error)
}

//! `image ls`: a list of images.

use api::client::Client;
use api::images::{Image, ImageStatus};
use time::OffsetDateTime;

use crate::failure::Failure;
use crate::printer::Printer;
use crate::table::{self, Align};
use crate::units;

/// Enough of a digest to tell images apart.
const DIGEST_SHOWN: usize = "sha256:".len() + 12;

pub(crate) async fn ls(client: &Client, printer: &Printer) -> Result<(), Failure> {
    let images = client.list_images().await?;
    let now = OffsetDateTime::now_utc();
    Ok(printer.show(&images, |images| image_table(images, now))?)
}

fn image_table(images: &[Image], now: OffsetDateTime) -> String {
    table::render(
        [
            ("NAME", Align::Left),
            ("DIGEST", Align::Left),
            ("STATUS", Align::Left),
            ("SIZE", Align::Right),
            ("AGE", Align::Left),
        ],
        images.iter().map(|image| {
            [
                image.name.clone(),
                image.digest.chars().take(DIGEST_SHOWN).collect(),
                status(image),
                image.size_bytes.map(units::bytes).unwrap_or_default(),
                units::age(image.created_at, now),
            ]
        }),
    )
}

fn status(image: &Image) -> String {
    let word = match image.status {
        ImageStatus::Pending => "pending",
        ImageStatus::Pulling => "pulling",
        ImageStatus::Converting => "converting",
        ImageStatus::Ready => "ready",
        ImageStatus::Failed => "failed",
    };
    match &image.error {
        Some(error) => format!("{word}: {error}"),
        None => word.to_owned(),
    }
}

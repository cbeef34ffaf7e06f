//! `image rm`: remove images.

use api::client::Client;
use serde::Serialize;

use crate::args::ImageRmArgs;
use crate::explain;
use crate::failure::Failure;
use crate::printer::Printer;

#[derive(Debug, Serialize)]
struct Removed<'a> {
    image: &'a str,
    removed: bool,
}

pub(crate) async fn rm(
    client: &Client,
    printer: &Printer,
    args: ImageRmArgs,
) -> Result<(), Failure> {
    for image in &args.images {
        client
            .delete_image(image)
            .await
            .map_err(|error| explain::image(image, error))?;
        let result = Removed {
            image,
            removed: true,
        };
        printer.show(&result, |result| result.image.to_owned())?;
    }
    Ok(())
}

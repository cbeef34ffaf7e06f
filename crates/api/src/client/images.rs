//! Images on the server.

use reqwest::Body;
use reqwest::header::HeaderValue;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::{Client, ClientError};
use crate::images::{CreateImageRequest, Image, ImportImageQuery};

/// Large reads, because an archive is sent front to back as fast as it goes.
const IMPORT_CHUNK_BYTES: usize = 256 * 1024;

impl Client {
    /// All images.
    pub async fn list_images(&self) -> Result<Vec<Image>, ClientError> {
        self.get(&["images"]).decode().await
    }

    /// One image by reference.
    pub async fn get_image(&self, reference: &str) -> Result<Image, ClientError> {
        self.get(&["images", reference]).decode().await
    }

    /// Asks the server to get an image.
    pub async fn create_image(&self, request: &CreateImageRequest) -> Result<Image, ClientError> {
        self.post(&["images"]).json(request)?.decode().await
    }

    /// Sends an archive; the image is ready when this returns.
    pub async fn import_image(
        &self,
        query: &ImportImageQuery,
        archive: impl AsyncRead + Send + 'static,
    ) -> Result<Image, ClientError> {
        let stream = ReaderStream::with_capacity(archive, IMPORT_CHUNK_BYTES);
        let response = self
            .post(&["images", "import"])
            .query(query)?
            .header(
                "content-type",
                HeaderValue::from_static("application/x-tar"),
            )
            .endless()
            .send_stream(Body::wrap_stream(stream))
            .await?;
        let content = response.bytes().await.map_err(|e| self.broken(e))?;
        serde_json::from_slice(&content).map_err(ClientError::Decode)
    }

    /// Removes an image's name, and its disk with the last name.
    pub async fn delete_image(&self, reference: &str) -> Result<(), ClientError> {
        self.delete(&["images", reference]).send().await.map(drop)
    }
}

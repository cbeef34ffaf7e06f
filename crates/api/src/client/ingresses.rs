//! Ingresses. Each call takes an id, a name or a unique id prefix.

use super::{Client, ClientError};
use crate::ingresses::{CreateIngressRequest, Ingress};

impl Client {
    /// All ingresses.
    pub async fn list_ingresses(&self) -> Result<Vec<Ingress>, ClientError> {
        self.get(&["ingresses"]).decode().await
    }

    /// One ingress.
    pub async fn get_ingress(&self, ingress: &str) -> Result<Ingress, ClientError> {
        self.get(&["ingresses", ingress]).decode().await
    }

    /// Makes an ingress; it is live when this returns.
    pub async fn create_ingress(
        &self,
        request: &CreateIngressRequest,
    ) -> Result<Ingress, ClientError> {
        self.post(&["ingresses"]).json(request)?.decode().await
    }

    /// Removes an ingress. Connections that are open go on for a while.
    pub async fn delete_ingress(&self, ingress: &str) -> Result<(), ClientError> {
        self.delete(&["ingresses", ingress]).send().await.map(drop)
    }
}

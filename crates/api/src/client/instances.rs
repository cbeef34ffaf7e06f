//! The life of instances. Each call takes an id, a name or a unique id prefix.

use super::{Client, ClientError};
use crate::instances::{
    CreateInstanceRequest, DeleteInstanceQuery, ForkManyResponse, ForkRequest, Instance,
    InstanceStats, ListInstancesQuery, PathInfo, PromoteRequest, StandbyRequest, StartRequest,
    StatQuery, UpdateInstanceRequest, WaitQuery, WaitResponse,
};

impl Client {
    /// All instances that fit the query.
    pub async fn list_instances(
        &self,
        query: &ListInstancesQuery,
    ) -> Result<Vec<Instance>, ClientError> {
        self.get(&["instances"])
            .raw_query(&query.to_query())
            .decode()
            .await
    }

    /// One instance.
    pub async fn get_instance(&self, instance: &str) -> Result<Instance, ClientError> {
        self.get(&["instances", instance]).decode().await
    }

    /// Makes an instance and begins to start it.
    pub async fn create_instance(
        &self,
        request: &CreateInstanceRequest,
    ) -> Result<Instance, ClientError> {
        self.post(&["instances"])
            .json(request)?
            .endless()
            .decode()
            .await
    }

    /// Changes what may be changed later.
    pub async fn update_instance(
        &self,
        instance: &str,
        request: &UpdateInstanceRequest,
    ) -> Result<Instance, ClientError> {
        self.patch(&["instances", instance])
            .json(request)?
            .decode()
            .await
    }

    /// Removes an instance and all that is its own.
    pub async fn delete_instance(
        &self,
        instance: &str,
        query: &DeleteInstanceQuery,
    ) -> Result<(), ClientError> {
        self.delete(&["instances", instance])
            .query(query)?
            .endless()
            .send()
            .await
            .map(drop)
    }

    /// Boots a stopped instance.
    pub async fn start(
        &self,
        instance: &str,
        request: &StartRequest,
    ) -> Result<Instance, ClientError> {
        self.post(&["instances", instance, "start"])
            .json(request)?
            .endless()
            .decode()
            .await
    }

    /// Shuts the guest down.
    pub async fn stop(&self, instance: &str) -> Result<Instance, ClientError> {
        self.act(instance, "stop").await
    }

    /// Writes the guest's memory to disk and ends the VMM.
    pub async fn standby(
        &self,
        instance: &str,
        request: &StandbyRequest,
    ) -> Result<Instance, ClientError> {
        self.post(&["instances", instance, "standby"])
            .json(request)?
            .endless()
            .decode()
            .await
    }

    /// Wakes an instance from standby.
    pub async fn restore(&self, instance: &str) -> Result<Instance, ClientError> {
        self.act(instance, "restore").await
    }

    /// Makes a standby instance a template.
    pub async fn promote_template(&self, instance: &str) -> Result<Instance, ClientError> {
        self.act(instance, "promote-template").await
    }

    /// As [`Client::promote_template`], with what holds for its forks.
    pub async fn promote_template_with(
        &self,
        instance: &str,
        request: &PromoteRequest,
    ) -> Result<Instance, ClientError> {
        self.post(&["instances", instance, "promote-template"])
            .json(request)?
            .endless()
            .decode()
            .await
    }

    /// Makes a template without forks a standby instance again.
    pub async fn demote_template(&self, instance: &str) -> Result<Instance, ClientError> {
        self.act(instance, "demote-template").await
    }

    /// One fork; any `count` in the request is left out.
    pub async fn fork(
        &self,
        instance: &str,
        request: &ForkRequest,
    ) -> Result<Instance, ClientError> {
        let single = ForkRequest {
            count: None,
            ..request.clone()
        };
        self.post(&["instances", instance, "fork"])
            .json(&single)?
            .endless()
            .decode()
            .await
    }

    /// As many forks as the request's `count`, one when it has none.
    pub async fn fork_many(
        &self,
        instance: &str,
        request: &ForkRequest,
    ) -> Result<ForkManyResponse, ClientError> {
        let many = ForkRequest {
            count: Some(request.count.unwrap_or(1)),
            ..request.clone()
        };
        self.post(&["instances", instance, "fork"])
            .json(&many)?
            .endless()
            .decode()
            .await
    }

    /// Waits for a state, at most as long as the query says.
    pub async fn wait(
        &self,
        instance: &str,
        query: &WaitQuery,
    ) -> Result<WaitResponse, ClientError> {
        self.get(&["instances", instance, "wait"])
            .query(query)?
            .endless()
            .decode()
            .await
    }

    /// What is at a path in the guest.
    pub async fn stat(&self, instance: &str, query: &StatQuery) -> Result<PathInfo, ClientError> {
        self.get(&["instances", instance, "stat"])
            .query(query)?
            .decode()
            .await
    }

    /// What an instance costs its host.
    pub async fn stats(&self, instance: &str) -> Result<InstanceStats, ClientError> {
        self.get(&["instances", instance, "stats"]).decode().await
    }

    async fn act(&self, instance: &str, action: &str) -> Result<Instance, ClientError> {
        self.post(&["instances", instance, action])
            .endless()
            .decode()
            .await
    }
}

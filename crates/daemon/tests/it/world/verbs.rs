//! What tests say often.

use std::time::Duration;

use guest::{ExecSpec, Output};
use model::{InstanceId, InstanceRecord, State};
use serde_json::{Value, json};

use super::{IMAGE, OVERLAY, World};

/// Longest that anything here may take, however busy the host is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

impl World {
    /// A create request for `name`.
    pub(crate) fn plain(name: &str) -> Value {
        json!({ "name": name, "image": IMAGE, "size": "128MB", "overlay_size": OVERLAY, "vcpus": 1 })
    }

    /// A running instance; its id.
    pub(crate) async fn running(&self, name: &str) -> String {
        let made = self.post("/instances", Self::plain(name)).await.ok();
        let id = made["id"].as_str().unwrap().to_owned();
        self.reach(&id, State::Running).await;
        id
    }

    /// A running instance on this VMM; its id.
    pub(crate) async fn running_on(&self, name: &str, vmm: &str) -> String {
        let mut body = Self::plain(name);
        body["hypervisor"] = json!(vmm);
        let made = self.post("/instances", body).await.ok();
        assert_eq!(made["hypervisor"], json!(vmm));
        let id = made["id"].as_str().unwrap().to_owned();
        self.reach(&id, State::Running).await;
        id
    }

    pub(crate) async fn stopped(&self, name: &str) -> String {
        let id = self.running(name).await;
        self.act(&id, "stop").await;
        id
    }

    pub(crate) async fn standby(&self, name: &str) -> String {
        let id = self.running(name).await;
        self.act(&id, "standby").await;
        id
    }

    pub(crate) async fn template(&self, name: &str) -> String {
        let id = self.standby(name).await;
        self.act(&id, "promote-template").await;
        id
    }

    /// One operation that must succeed; the instance afterwards.
    pub(crate) async fn act(&self, id: &str, verb: &str) -> Value {
        let path = format!("/instances/{id}/{verb}");
        self.call("POST", &path, "").await.ok()
    }

    /// A fork that must succeed; its id.
    pub(crate) async fn fork(&self, source: &str, body: Value) -> String {
        let path = format!("/instances/{source}/fork");
        let made = self.post(&path, body).await.ok();
        made["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn show(&self, id: &str) -> Value {
        self.get(&format!("/instances/{id}")).await.ok()
    }

    pub(crate) async fn state(&self, id: &str) -> String {
        self.show(id).await["state"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn delete(&self, id: &str) {
        let answer = self.call("DELETE", &format!("/instances/{id}"), "").await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }

    /// Waits until the instance is in `state` and nothing is under way.
    pub(crate) async fn reach(&self, id: &str, state: State) {
        let parsed: InstanceId = id.parse().unwrap();
        let instances = &self.daemon().instances;
        let outcome = instances.wait(&parsed, state, PATIENCE).await.unwrap();
        assert_eq!(outcome.state, state, "{:?}", outcome.state_error);
    }

    /// The record as it is on disk.
    pub(crate) fn record(&self, id: &str) -> InstanceRecord {
        self.records.instance(&id.parse().unwrap()).unwrap().record
    }

    /// Runs one of the fake agent's commands through the daemon's own line; what it
    /// printed.
    pub(crate) async fn exec(&self, id: &str, words: &[&str]) -> String {
        let id: InstanceId = id.parse().unwrap();
        let instances = std::sync::Arc::clone(&self.daemon().instances);
        let argv = words.iter().map(|word| (*word).to_owned()).collect();
        let work = async move {
            let link = instances.wait_for_link(&id).await.unwrap();
            let spec = ExecSpec {
                argv,
                ..ExecSpec::default()
            };
            let (_input, mut output) = link.exec(spec).await.unwrap().split();
            let mut printed = Vec::new();
            loop {
                match output.next().await.unwrap().unwrap() {
                    Output::Stdout(bytes) | Output::Stderr(bytes) => {
                        printed.extend_from_slice(&bytes);
                    }
                    Output::Exit(_) => {
                        return String::from_utf8(printed).unwrap().trim_end().to_owned();
                    }
                }
            }
        };
        self.daemon().runtime().spawn(work).await.unwrap()
    }

    /// Deletes what has expired, as the daemon does every second.
    pub(crate) async fn reap(&self) {
        let instances = std::sync::Arc::clone(&self.daemon().instances);
        let work = self
            .daemon()
            .runtime()
            .spawn(async move { instances.reap().await });
        work.await.unwrap().unwrap();
    }

    /// The text of a record.
    pub(crate) fn raw_record(&self, id: &str) -> String {
        let database = rusqlite::Connection::open(self.layout.database()).unwrap();
        let query = "SELECT record FROM instances WHERE id = ?1";
        database.query_row(query, [id], |row| row.get(0)).unwrap()
    }

    /// Replaces the text of a record, as a fault of the disk or of another version would.
    pub(crate) fn set_raw_record(&self, id: &str, text: &str) {
        let database = rusqlite::Connection::open(self.layout.database()).unwrap();
        database.busy_timeout(PATIENCE).unwrap();
        let change = "UPDATE instances SET record = ?2 WHERE id = ?1";
        assert_eq!(database.execute(change, [id, text]).unwrap(), 1);
    }
}

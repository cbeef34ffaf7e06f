//! A guest of the fake driver that remembers words, in its RAM and in files on its "disk": the topmost file of the
//! chain holds one `name=word` line per word, the files below are read for what it does not hold.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hypervisor::conformance::{Ask, Place};
use hypervisor::fake::{FakeGuest, FakeHardware};
use hypervisor::{GuestStream, Vm};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

struct Notebook {
    hardware: FakeHardware,
    words: Mutex<BTreeMap<String, String>>,
}

pub(crate) fn make(hardware: FakeHardware) -> Arc<dyn FakeGuest> {
    Arc::new(Notebook {
        hardware,
        words: Mutex::default(),
    })
}

/// One line to the guest, one line back.
pub(crate) async fn ask(vm: &dyn Vm, question: &Ask) -> String {
    let line = match question {
        Ask::Put(place, name, word) => format!("put {place:?} {name} {word}\n"),
        Ask::Get(place, name) => format!("get {place:?} {name}\n"),
        Ask::PowerOff => "off\n".to_owned(),
    };
    let mut stream = BufReader::new(vm.dial(Duration::from_secs(5)).await.unwrap());
    stream.write_all(line.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_line(&mut answer).await.unwrap();
    answer.trim_end().to_owned()
}

impl Notebook {
    fn answer(&self, line: &str) -> String {
        let mut parts = line.splitn(4, ' ');
        let mut part = || parts.next().unwrap_or_default();
        let (verb, place, name, word) = (part(), part(), part(), part());
        let disk = place == format!("{:?}", Place::Disk);
        match (verb, disk) {
            ("put", true) => {
                let mut top = fs::OpenOptions::new()
                    .append(true)
                    .open(&self.hardware.disk.last().unwrap().path)
                    .unwrap();
                writeln!(top, "\n{name}={word}").unwrap();
                String::new()
            }
            ("put", false) => {
                self.words
                    .lock()
                    .unwrap()
                    .insert(name.to_owned(), word.to_owned());
                String::new()
            }
            ("get", true) => self.read_disk(name),
            ("get", false) => self
                .words
                .lock()
                .unwrap()
                .get(name)
                .cloned()
                .unwrap_or_default(),
            _ => {
                self.hardware.power.off();
                String::new()
            }
        }
    }

    fn read_disk(&self, name: &str) -> String {
        let find = |file: &hypervisor::DiskFile| {
            let bytes = fs::read(&file.path).unwrap();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            text.lines()
                .rev()
                .find_map(|line| line.strip_prefix(&format!("{name}=")).map(str::to_owned))
        };
        self.hardware
            .disk
            .iter()
            .rev()
            .find_map(find)
            .unwrap_or_default()
    }
}

#[async_trait]
impl FakeGuest for Notebook {
    async fn serve(&self, stream: GuestStream) {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while matches!(stream.read_line(&mut line).await, Ok(1..)) {
            let answer = self.answer(line.trim_end());
            if stream
                .write_all(format!("{answer}\n").as_bytes())
                .await
                .is_err()
            {
                return;
            }
            line.clear();
        }
    }

    fn save(&self) -> Vec<u8> {
        serde_json::to_vec(&*self.words.lock().unwrap()).unwrap()
    }

    fn load(&self, ram: &[u8]) {
        *self.words.lock().unwrap() = serde_json::from_slice(ram).unwrap();
    }
}

//! Network namespaces that tests act in.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::sys;

/// Longest wait of a client. What is dropped is waited for in full.
pub(crate) const PATIENCE: Duration = Duration::from_millis(700);

/// A namespace.
#[derive(Debug)]
pub(crate) struct Place(File);

impl Place {
    /// That of the calling thread.
    pub(crate) fn here() -> Self {
        Self(File::open("/proc/thread-self/ns/net").unwrap())
    }

    /// That of a file.
    pub(crate) fn of(path: &Path) -> Self {
        Self(File::open(path).unwrap())
    }

    /// A new one.
    pub(crate) fn new() -> Self {
        let make = || {
            sys::unshare(UnshareFlags::NEWNET).unwrap();
            ip("link set lo up");
            Self::here()
        };
        thread::spawn(make).join().unwrap()
    }

    /// Descriptor for `ip link set netns`.
    pub(crate) fn path(&self) -> String {
        use std::os::fd::AsRawFd;
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs a job in it.
    pub(crate) fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = || {
                rustix::thread::move_into_link_name_space(
                    self.0.as_fd(),
                    Some(LinkNameSpaceType::Network),
                )
                .unwrap();
                job()
            };
            scope.spawn(inside).join().unwrap()
        })
    }

    /// Serves TCP: everybody who connects gets `answer`, a space and their own address.
    pub(crate) fn serve(&self, at: &str, answer: &str) {
        let listener = self.run(|| TcpListener::bind(at).unwrap());
        let answer = answer.to_owned();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let from = stream
                    .peer_addr()
                    .map(|peer| peer.ip().to_string())
                    .unwrap_or_default();
                let _ = stream.write_all(format!("{answer} {from}").as_bytes());
            }
        });
    }

    /// Connects and reads until the end.
    pub(crate) fn ask(&self, to: &str) -> io::Result<String> {
        let to: SocketAddr = to.parse().unwrap();
        self.run(move || {
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
    }

    /// Whether somebody answers.
    pub(crate) fn reaches(&self, to: &str) -> bool {
        self.ask(to).is_ok()
    }

    /// Serves UDP: each packet is answered with its sender.
    pub(crate) fn serve_udp(&self, at: &str) {
        let socket = self.run(|| UdpSocket::bind(at).unwrap());
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(from.ip().to_string().as_bytes(), from);
            }
        });
    }

    /// Sends a packet and gives the answer; `from` is the own port, or 0.
    pub(crate) fn ask_udp(&self, from: u16, to: &str) -> io::Result<String> {
        self.run(|| {
            let socket = UdpSocket::bind(("0.0.0.0", from))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect(to)?;
            socket.send(b"?")?;
            let mut buffer = [0; 512];
            let length = socket.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        })
    }

    /// Runs `ip` in it.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        self.run(|| ip(arguments))
    }
}

/// Runs `ip` in the namespace of the calling thread.
pub(crate) fn ip(arguments: &str) -> String {
    tool("ip", arguments)
}

/// Runs a program with arguments separated by spaces, and gives what it printed.
pub(crate) fn tool(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split(' '))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

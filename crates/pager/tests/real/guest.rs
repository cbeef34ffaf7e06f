//! A guest in a process of its own, told what to do line by line. It stands in for a VMM: it can be killed, and what
//! it does wrong hurts nobody else.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use memory::PAGE_BYTES;
use pager::fake;

/// First argument with which this program is a guest.
pub(crate) const GUEST: &str = "guest";

/// Longest that anything may take here, on the busiest of machines.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The guest's program: `guest <socket> <ram bytes> small|large`.
pub(crate) fn main(arguments: &[String]) {
    let [socket, ram_bytes, pages] = arguments else {
        panic!("three arguments");
    };
    let make = if pages == "large" {
        fake::Guest::with_large_pages
    } else {
        fake::Guest::new
    };
    let mut guest = make(ram_bytes.parse().unwrap()).unwrap();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let number = |nth: usize| words[nth].parse::<usize>().unwrap();
        let pages = |nth: usize| number(nth) * PAGE_BYTES;
        match words[0] {
            "hand-over" => guest.hand_over(Path::new(socket)).unwrap(),
            "say" => {
                let fd = guest.uffd().try_clone_to_owned().unwrap();
                guest
                    .say(Path::new(socket), &words[1..].join(" "), &[fd.as_fd()])
                    .unwrap();
            }
            "say-nothing-with" => {
                let file = std::fs::File::open(words[1]).unwrap();
                let text = guest.handshake();
                guest
                    .say(Path::new(socket), &text, &[file.as_fd()])
                    .unwrap();
            }
            "sum" => {
                println!("{}", sum(&guest, pages(1), pages(2), number(3)));
                continue;
            }
            "read-apart" => read_apart(&guest, number(1), pages(2)),
            "discard-in-a-crowd" => discard_in_a_crowd(&guest, number(1), pages(2), pages(3)),
            "crowd" => return crowd(guest, number(1)),
            "flood" => return flood(guest, number(1), number(2)),
            "connect" => guest.connect(Path::new(socket)).unwrap(),
            "stray" => guest.stray().unwrap(),
            "close" => guest.close_uffd().unwrap(),
            "say-more" => guest.say_more().unwrap(),
            "hang-up" => guest.hang_up(),
            "discard" => guest.discard(pages(1), pages(2)).unwrap(),
            "unmap" => guest.unmap(pages(1), pages(2)).unwrap(),
            "write" => guest.write(pages(1), &[words[2].as_bytes()[0]]),
            other => panic!("{other}"),
        }
        println!("done");
    }
}

/// Many threads, each on a page of its own, all at once.
fn read_apart(guest: &fake::Guest, threads: usize, apart: usize) {
    std::thread::scope(|scope| {
        for nth in 0..threads {
            scope.spawn(move || guest.read(nth * apart, &mut [0]));
        }
    });
}

/// Many threads, each on a page of its own, all at once; nobody waits for them.
fn crowd(guest: fake::Guest, threads: usize) {
    let guest: &'static fake::Guest = Box::leak(Box::new(guest));
    for nth in 0..threads {
        std::thread::Builder::new()
            .stack_size(64 << 10)
            .spawn(move || guest.read(nth * PAGE_BYTES, &mut [0]))
            .unwrap();
    }
    println!("done");
    std::thread::park();
}

/// Gives memory back while many threads wait for a page each.
fn discard_in_a_crowd(guest: &fake::Guest, threads: usize, start: usize, len: usize) {
    std::thread::scope(|scope| {
        scope.spawn(move || read_apart(guest, threads, PAGE_BYTES));
        guest.discard(start, len).unwrap();
    });
}

/// Gives memory back and takes it again for as long as it lives.
fn flood(guest: fake::Guest, first: usize, count: usize) {
    const THREADS: usize = 4;
    let guest: &'static fake::Guest = Box::leak(Box::new(guest));
    for thread in 0..THREADS {
        std::thread::spawn(move || {
            loop {
                for page in (first..first + count).skip(thread).step_by(THREADS) {
                    guest.read(page * PAGE_BYTES, &mut [0]);
                    guest.discard(page * PAGE_BYTES, PAGE_BYTES).unwrap();
                }
            }
        });
    }
    println!("done");
    std::thread::park();
}

/// Hash of a range that `threads` threads have read, page by page in turn. Says how far the first has come.
fn sum(guest: &fake::Guest, start: usize, len: usize, threads: usize) -> String {
    let mut bytes = vec![0; len];
    let mut shares: Vec<Vec<(usize, &mut [u8])>> = (0..threads).map(|_| Vec::new()).collect();
    for (nth, page) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
        shares[nth % threads].push((nth, page));
    }
    std::thread::scope(|scope| {
        for (thread, share) in shares.into_iter().enumerate() {
            scope.spawn(move || {
                for (nth, page) in share {
                    guest.read(start + nth * PAGE_BYTES, page);
                    if thread == 0 && nth.is_multiple_of(64) {
                        println!("at {nth}");
                    }
                }
            });
        }
    });
    blake3::hash(&bytes).to_hex().to_string()
}

/// A running guest.
pub(crate) struct Guest {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    pub(crate) listener: UnixListener,
    _dir: tempfile::TempDir,
}

impl Guest {
    /// Starts one with `ram_bytes` of memory that has not been handed over yet.
    pub(crate) fn start(ram_bytes: usize) -> Self {
        Self::with_pages(ram_bytes, "small")
    }

    /// One on `small` or `large` pages.
    pub(crate) fn with_pages(ram_bytes: usize, pages: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket: PathBuf = dir.path().join("uffd.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(GUEST)
            .arg(&socket)
            .arg(ram_bytes.to_string())
            .arg(pages)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            stdin,
            lines,
            listener,
            _dir: dir,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Says what to do next and waits for nothing.
    pub(crate) fn tell(&mut self, line: &str) {
        // A guest that has been killed is told nothing, which its answer shows.
        let _ = writeln!(self.stdin, "{line}");
    }

    /// The next line; `None` once the guest has ended.
    pub(crate) fn next(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("the guest hangs"),
        }
    }

    /// The next line that is no progress.
    pub(crate) fn result(&self) -> Option<String> {
        loop {
            match self.next() {
                Some(line) if line.starts_with("at ") => {}
                other => return other,
            }
        }
    }

    /// Does something and waits until it is done.
    pub(crate) fn ask(&mut self, line: &str) -> Option<String> {
        self.tell(line);
        self.result()
    }

    /// Hash of pages, read by two threads.
    pub(crate) fn sum(&mut self, first: u64, count: u64) -> Option<String> {
        self.ask(&format!("sum {first} {count} 2"))
    }

    /// Waits until so many of its threads wait for a page.
    pub(crate) fn waits_with(&self, threads: usize) {
        let fds = format!("/proc/{}/fd", self.pid());
        let is_uffd = |fd: &std::fs::DirEntry| {
            std::fs::read_link(fd.path())
                .is_ok_and(|target| target.as_os_str() == "anon_inode:[userfaultfd]")
        };
        let mut found = std::fs::read_dir(fds).unwrap().flatten();
        let fd = found.find(is_uffd).unwrap().file_name();
        let info = format!("/proc/{}/fdinfo/{}", self.pid(), fd.display());
        let waiting = || -> usize {
            let text = std::fs::read_to_string(&info).unwrap();
            let total = text.lines().find_map(|line| line.strip_prefix("total:"));
            total.unwrap().trim().parse().unwrap()
        };
        let began = Instant::now();
        while waiting() < threads {
            assert!(began.elapsed() < PATIENCE, "{} wait", waiting());
            std::thread::yield_now();
        }
    }

    /// Waits until its first thread waits for a removal to be heard.
    pub(crate) fn is_discarding(&self) {
        // The number of `madvise` on x86_64, which is how memory is given back.
        let is_in = || {
            let call = std::fs::read_to_string(format!("/proc/{}/syscall", self.pid()));
            call.is_ok_and(|call| call.starts_with("28 "))
        };
        let began = Instant::now();
        while !is_in() {
            assert!(began.elapsed() < PATIENCE, "it discards nothing");
            std::thread::yield_now();
        }
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        while self.next().is_some() {}
        self.child.wait().unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

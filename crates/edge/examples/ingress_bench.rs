//! Requests per second straight to a web server, through the edge, and through nginx, in one run.
//!
//! `cargo run --release -p edge --example ingress_bench [-- --seconds 1 --rounds 9 --connections 32]`
//! The web server is one of this program; `--origin ADDRESS:PORT` names another, in a guest for
//! example, of which `/` is asked. The three ways take turns, so that all meet the same load of the machine; the median of the
//! rounds counts. Prints one line of JSON last. Without nginx on the path its part is left out.

use std::convert::Infallible;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use edge::{Config, DirectoryUpdate, Egress, Entry, Place, Rule, Start, Target};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use model::{InstanceId, State};
use tokio::net::{TcpListener, TcpStream};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// What the web server answers, about the size of a small page.
const BODY: [u8; 1024] = [b'x'; 1024];
const HOST: &str = "bench.example.com";
/// The web server's role of this program.
const ORIGIN: &str = "__origin";

struct Settings {
    seconds: u64,
    rounds: usize,
    connections: usize,
    origin: Option<SocketAddr>,
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let outcome = match words.next() {
        Some(word) if word == edge::EDGE_COMMAND => return edge::main(words),
        Some(word) if word == ORIGIN => runtime().and_then(|runtime| runtime.block_on(origin())),
        first => settings(first.into_iter().chain(words))
            .and_then(|settings| runtime()?.block_on(bench(&settings))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn settings(words: impl Iterator<Item = OsString>) -> Outcome<Settings> {
    let mut settings = Settings {
        seconds: 1,
        rounds: 9,
        connections: 32,
        origin: None,
    };
    let words: Vec<_> = words
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    for pair in words.chunks(2) {
        match pair {
            [name, value] if name == "--seconds" => settings.seconds = value.parse()?,
            [name, value] if name == "--rounds" => settings.rounds = value.parse()?,
            [name, value] if name == "--connections" => settings.connections = value.parse()?,
            [name, value] if name == "--origin" => settings.origin = Some(value.parse()?),
            other => return Err(format!("unknown: {other:?}").into()),
        }
    }
    Ok(settings)
}

fn runtime() -> Outcome<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}

/// Plays the guest: prints its port and answers until its parent ends.
async fn origin() -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(&listener.local_addr()?.port().to_string());
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let _ = stream.set_nodelay(true);
            let service = service_fn(|_| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(&BODY))))
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    // The end of its input is the end of its parent.
    tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await?;
    Ok(())
}

/// A process that ends with this value, and with it those that it started.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Asked rather than killed: nginx ends its workers, which would stay otherwise.
        let pid = i32::try_from(self.0.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

/// A way to the page, and the processes in between.
struct Way {
    name: &'static str,
    address: SocketAddr,
    programs: Vec<u32>,
    /// One for each round.
    rates: Vec<f64>,
    spent_ms: f64,
    requests: f64,
}

impl Way {
    fn new(name: &'static str, address: SocketAddr, programs: Vec<u32>) -> Self {
        Self {
            name,
            address,
            programs,
            rates: Vec::new(),
            spent_ms: 0.0,
            requests: 0.0,
        }
    }

    /// Processor time of the processes in between for one request, in microseconds. Unlike the
    /// rates it hardly depends on who else is busy.
    fn cpu_us(&self) -> f64 {
        self.spent_ms * 1e3 / self.requests
    }

    /// The median over the rounds of how its rate stands to another's.
    fn of(&self, other: &Self) -> f64 {
        let ratios = self.rates.iter().zip(&other.rates);
        median(ratios.map(|(own, other)| own / other).collect())
    }
}

async fn bench(settings: &Settings) -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let (_origin, origin) = match settings.origin {
        Some(origin) => (None, origin),
        None => {
            let (running, port) = start_origin()?;
            (Some(running), local(port))
        }
    };
    let place = Place::at(directory.path().join("edge"));
    let (edge, _) = edge::ensure(&Start::new(place, std::env::current_exe()?, "bench")).await?;
    // The edge outlives its starter, so it is told to end whatever happens.
    let outcome = measure(settings, directory.path(), &edge, origin).await;
    edge.stop().await?;
    outcome
}

async fn measure(
    settings: &Settings,
    directory: &Path,
    edge: &edge::Client,
    origin: SocketAddr,
) -> Outcome<()> {
    let port = configure(edge, origin).await?;
    let nginx = start_nginx(directory, origin)?;
    let mut ways = vec![
        Way::new("direct", origin, Vec::new()),
        Way::new("edge", local(port), vec![edge.hello().await?.pid]),
    ];
    if let Some((running, port)) = &nginx {
        let programs = with_children(running.0.id());
        ways.push(Way::new("nginx", local(*port), programs));
    }
    for way in &ways {
        load(way.address, settings, Duration::from_millis(500)).await?;
    }
    let time = Duration::from_secs(settings.seconds);
    for round in 1..=settings.rounds {
        for way in &mut ways {
            let before = processor_ms(&way.programs);
            let (rate, p50, p99) = load(way.address, settings, time).await?;
            way.spent_ms += processor_ms(&way.programs) - before;
            way.requests += rate * time.as_secs_f64();
            way.rates.push(rate);
            let name = way.name;
            say(&format!(
                "round {round}  {name:<6} {rate:>8.0} requests/s  p50 {p50:.2} ms  p99 {p99:.2} ms"
            ));
        }
    }
    report(&ways);
    Ok(())
}

fn report(ways: &[Way]) {
    let mut report = serde_json::json!({});
    for way in ways {
        report[format!("{}_per_s", way.name)] = median(way.rates.clone()).round().into();
        if !way.programs.is_empty() {
            report[format!("{}_cpu_us", way.name)] = way.cpu_us().into();
        }
    }
    if let [direct, edge, rest @ ..] = ways {
        report["edge_of_direct"] = edge.of(direct).into();
        if let [nginx, ..] = rest {
            report["edge_of_nginx"] = edge.of(nginx).into();
        }
    }
    say(&report.to_string());
}

/// A process and those it started, some time after its start.
fn with_children(pid: u32) -> Vec<u32> {
    let children =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    std::iter::once(pid).chain(children).collect()
}

/// Processor time of processes so far: fields 14 and 15 of their `stat`, in ticks of 10 ms.
fn processor_ms(pids: &[u32]) -> f64 {
    let of = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        Some(
            ticks
                .filter_map(|ticks| ticks.parse::<f64>().ok())
                .sum::<f64>()
                * 10.0,
        )
    };
    pids.iter().filter_map(of).sum()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn start_origin() -> Outcome<(Running, u16)> {
    use std::io::BufRead as _;
    let mut child = Command::new(std::env::current_exe()?)
        .arg(ORIGIN)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("the origin has no output")?;
    let mut line = String::new();
    std::io::BufReader::new(output).read_line(&mut line)?;
    Ok((Running(child), line.trim().parse()?))
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn free_port() -> Outcome<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}

/// Has the edge lead a host name to the origin, and returns the port for it.
async fn configure(client: &edge::Client, origin: SocketAddr) -> Outcome<u16> {
    let port = free_port()?;
    let mut config = Config::empty(1);
    config.ingress.bind = vec!["127.0.0.1".parse()?];
    config.ingress.rules = vec![Rule {
        id: "bench".to_owned(),
        hostname: HOST.parse()?,
        port,
        target: Target {
            instance: "web".parse()?,
            port: origin.port(),
        },
        tls: false,
        redirect_http: false,
        header_auth: None,
        wake: false,
    }];
    client.apply(config).await?;
    let entry = Entry {
        id: InstanceId::from_entropy([1; 16]),
        name: Some("web".parse()?),
        address: Some(origin.ip()),
        generation: 1,
        state: State::Running,
        group: None,
        egress: Egress::None,
        reachable: Vec::new(),
    };
    let entries = vec![entry];
    client
        .directory(DirectoryUpdate::Replace {
            sequence: 1,
            entries,
        })
        .await?;
    Ok(port)
}

/// nginx as people set it up for this: kept connections, an access log, one worker for each CPU.
fn start_nginx(directory: &Path, origin: SocketAddr) -> Outcome<Option<(Running, u16)>> {
    let port = free_port()?;
    let config = format!(
        "daemon off; worker_processes auto; pid {dir}/nginx.pid; error_log {dir}/error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log {dir}/nginx.log combined buffer=64k flush=1s; keepalive_requests 1000000;\n\
         client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;\n\
         upstream guest {{ server {origin}; keepalive 64; keepalive_requests 1000000; }}\n\
         server {{ listen 127.0.0.1:{port}; server_name {HOST}; location / {{ proxy_pass http://guest;\n\
         proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme; }} }} }}\n",
        dir = directory.display()
    );
    let path = directory.join("nginx.conf");
    std::fs::write(&path, config)?;
    let spawned = Command::new("nginx")
        .arg("-c")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = spawned else {
        say("nginx is not installed (apt-get install nginx-light); its part is left out");
        return Ok(None);
    };
    let nginx = Running(child);
    let address = local(port);
    let deadline = Instant::now() + Duration::from_secs(5);
    while std::net::TcpStream::connect(address).is_err() {
        if Instant::now() > deadline {
            return Err("nginx does not listen".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(Some((nginx, port)))
}

/// Every client sends its next request when the answer to the last is complete, on the same
/// connection if the server keeps it. Returns requests per second and two percentiles in
/// milliseconds.
async fn load(
    address: SocketAddr,
    settings: &Settings,
    time: Duration,
) -> Outcome<(f64, f64, f64)> {
    let started = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..settings.connections {
        clients.spawn(async move {
            let mut sender = connect(address).await?;
            let mut times = Vec::new();
            while started.elapsed() < time {
                let request = Request::get("/").header("host", HOST);
                let request = request.body(Full::<Bytes>::default())?;
                let sent = Instant::now();
                if sender.ready().await.is_err() {
                    sender = connect(address).await?;
                }
                let response = sender.send_request(request).await?;
                if response.status() != 200 {
                    return Err(format!("{address} answered {}", response.status()).into());
                }
                response.into_body().collect().await?;
                times.push(sent.elapsed());
            }
            Ok::<_, Failed>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(client) = clients.join_next().await {
        times.extend(client?.map_err(|error| error.to_string())?);
    }
    let elapsed = started.elapsed().as_secs_f64();
    times.sort();
    let at = |part: usize| {
        let time = times.get(times.len() * part / 100);
        time.map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    #[expect(clippy::cast_precision_loss, reason = "a count of requests")]
    let rate = times.len() as f64 / elapsed;
    Ok((rate, at(50), at(99)))
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, Failed> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

#[expect(clippy::print_stdout, reason = "a command's output")]
fn say(line: &str) {
    println!("{line}");
}

//! Requests per second straight to a web server, through the edge, and through nginx, in one run.
//!
//! `cargo run --release -p edge --example ingress_bench [-- --seconds 3 --rounds 3 --connections 32]`
//! The three ways take turns, so that all meet the same load of the machine; the median of the
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
        seconds: 3,
        rounds: 3,
        connections: 32,
    };
    let words: Vec<_> = words
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    for pair in words.chunks(2) {
        match pair {
            [name, value] if name == "--seconds" => settings.seconds = value.parse()?,
            [name, value] if name == "--rounds" => settings.rounds = value.parse()?,
            [name, value] if name == "--connections" => settings.connections = value.parse()?,
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

/// A process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn bench(settings: &Settings) -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let (_origin, port) = start_origin()?;
    let own = start_edge(directory.path(), port).await?;
    let nginx = start_nginx(directory.path(), port)?;
    let mut ways = vec![("direct", port), ("edge", own.1)];
    ways.extend(nginx.as_ref().map(|(_, port)| ("nginx", *port)));
    let mut rates = vec![Vec::new(); ways.len()];
    for (_, port) in &ways {
        load(*port, settings, Duration::from_millis(500)).await?;
    }
    for round in 1..=settings.rounds {
        for ((name, port), rates) in ways.iter().zip(&mut rates) {
            let (rate, p50, p99) =
                load(*port, settings, Duration::from_secs(settings.seconds)).await?;
            say(&format!(
                "round {round}  {name:<6} {rate:>8.0} requests/s  p50 {p50:.2} ms  p99 {p99:.2} ms"
            ));
            rates.push(rate);
        }
    }
    own.0.stop().await?;
    let medians: Vec<_> = rates.into_iter().map(median).collect();
    let mut report = serde_json::json!({
        "direct_per_s": medians[0].round(),
        "edge_per_s": medians[1].round(),
        "edge_of_direct": medians[1] / medians[0],
    });
    if let Some(nginx) = medians.get(2) {
        report["nginx_per_s"] = nginx.round().into();
        report["edge_of_nginx"] = (medians[1] / nginx).into();
    }
    say(&report.to_string());
    Ok(())
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

fn free_port() -> Outcome<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}

async fn start_edge(directory: &Path, target: u16) -> Outcome<(edge::Client, u16)> {
    let place = Place::at(directory.join("edge"));
    let (client, _) = edge::ensure(&Start::new(place, std::env::current_exe()?, "bench")).await?;
    let port = free_port()?;
    let mut config = Config::empty(1);
    config.ingress.bind = vec!["127.0.0.1".parse()?];
    config.ingress.rules = vec![Rule {
        id: "bench".to_owned(),
        hostname: HOST.parse()?,
        port,
        target: Target {
            instance: "web".parse()?,
            port: target,
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
        address: Some("127.0.0.1".parse()?),
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
    Ok((client, port))
}

/// nginx as people set it up for this: kept connections, an access log, one worker for each CPU.
fn start_nginx(directory: &Path, target: u16) -> Outcome<Option<(Running, u16)>> {
    let port = free_port()?;
    let config = format!(
        "daemon off; worker_processes auto; pid {dir}/nginx.pid; error_log {dir}/error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log {dir}/nginx.log combined buffer=64k flush=1s; keepalive_requests 1000000;\n\
         client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;\n\
         upstream guest {{ server 127.0.0.1:{target}; keepalive 64; keepalive_requests 1000000; }}\n\
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
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = spawned else {
        say("nginx is not installed (apt-get install nginx-light); its part is left out");
        return Ok(None);
    };
    let nginx = Running(child);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let deadline = Instant::now() + Duration::from_secs(5);
    while std::net::TcpStream::connect(address).is_err() {
        if Instant::now() > deadline {
            return Err("nginx does not listen".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(Some((nginx, port)))
}

/// Every connection sends its next request when the answer to the last is complete. Returns
/// requests per second and two percentiles in milliseconds.
async fn load(port: u16, settings: &Settings, time: Duration) -> Outcome<(f64, f64, f64)> {
    let started = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..settings.connections {
        clients.spawn(async move {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.set_nodelay(true)?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let mut times = Vec::new();
            while started.elapsed() < time {
                let request = Request::get("/")
                    .header("host", HOST)
                    .body(Full::<Bytes>::default())?;
                let sent = Instant::now();
                sender.ready().await?;
                let response = sender.send_request(request).await?;
                if response.status() != 200 {
                    return Err(format!("port {port} answered {}", response.status()).into());
                }
                if response.into_body().collect().await?.to_bytes().len() != BODY.len() {
                    return Err("the answer has another length".into());
                }
                times.push(sent.elapsed());
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(client) = clients.join_next().await {
        times.extend(client?.map_err(|error| error.to_string())?);
    }
    let elapsed = started.elapsed().as_secs_f64();
    times.sort();
    let at = |part: usize| {
        times
            .get(times.len() * part / 100)
            .map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    #[expect(clippy::cast_precision_loss, reason = "a count of requests")]
    let rate = times.len() as f64 / elapsed;
    Ok((rate, at(50), at(99)))
}

#[expect(clippy::print_stdout, reason = "a command's output")]
fn say(line: &str) {
    println!("{line}");
}

//! `coppiced`, the daemon, and the commands that need the host rather than the API.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use daemon::config::{Config, Given, LogFormat};
use daemon::doctor::{self, Grade};
use daemon::instances::Layout;
use daemon::setup::{self, SetupArgs};
use daemon::teardown;
use daemon::tokens::Tokens;

/// The coppice daemon: runs OCI images as microVMs and forks them.
#[derive(Parser)]
#[command(name = "coppiced", version, about, long_about = None)]
struct Arguments {
    /// Configuration file [default: /etc/coppice/coppice.toml if it exists]
    #[arg(long, env = "COPPICE_CONFIG", global = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    given: Given,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon (the default)
    Serve,
    /// Say what this host lacks and how to get it
    Doctor {
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Install the guest kernel and agent into the data directory
    Setup {
        #[command(flatten)]
        args: SetupArgs,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Remove what this data directory has on the host beside its files: network and edge
    Teardown {
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Make a token for the API
    Token {
        /// Who it is for
        #[arg(long, default_value = "admin")]
        subject: String,
        /// How long it holds, such as 24h
        #[arg(long, default_value = "8760h", value_parser = duration)]
        ttl: Duration,
        /// What it may do, such as instance:read,image:read [default: everything]
        #[arg(long, value_delimiter = ',')]
        scopes: Option<Vec<String>>,
        /// For programs
        #[arg(long)]
        json: bool,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    model::parse_duration(text).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let role = words.next();
    let is = |word: &str| role.as_ref().is_some_and(|role| role == word);
    // Before anything else: a pager gives up its rights, a launcher must be small and quick.
    if is(daemon::PAGER_COMMAND) {
        return pager::main(words);
    }
    if is(daemon::LAUNCH_COMMAND) {
        return hypervisor::launch_main();
    }
    if is(edge::EDGE_COMMAND) {
        return edge::main(words);
    }
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let config = Config::resolve(arguments.given, arguments.config.as_deref())?;
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => {
            log(&config)?;
            runtime()?.block_on(daemon::app::run(config))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor { json } => {
            let findings = runtime()?.block_on(doctor::examine(&config))?;
            if json {
                say(&serde_json::to_string_pretty(&findings)?);
            } else {
                findings.iter().for_each(show);
            }
            let healthy = doctor::healthy(&findings);
            Ok(if healthy {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Command::Setup { args, json } => {
            let layout = Layout::new(&config.data_dir);
            let assets = setup::run(args, &layout, |step| {
                if !json {
                    say(step);
                }
            })?;
            if json {
                let kernel = assets.kernel.display().to_string();
                let version = assets.kernel_version;
                say(&serde_json::json!({ "kernel": kernel, "version": version }).to_string());
            } else {
                say(&format!("kernel {} is ready", assets.kernel_version));
                say("start (or restart) coppiced to use it");
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Teardown { json } => {
            let removed = runtime()?.block_on(teardown::run(&config))?;
            if json {
                say(&serde_json::to_string(&removed)?);
            } else {
                say(&format!(
                    "network objects removed: {}",
                    removed.network_objects
                ));
                say(if removed.edge {
                    "the edge has ended"
                } else {
                    "no edge was running"
                });
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Token {
            subject,
            ttl,
            scopes,
            json,
        } => {
            let token = issue(&config, &subject, ttl, scopes)?;
            if json {
                say(&serde_json::json!({ "token": token }).to_string());
            } else {
                say(&token);
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn issue(
    config: &Config,
    subject: &str,
    ttl: Duration,
    scopes: Option<Vec<String>>,
) -> Result<String> {
    let layout = Layout::new(&config.data_dir);
    std::fs::create_dir_all(layout.root())
        .with_context(|| format!("cannot create {}", layout.root().display()))?;
    let tokens = Tokens::open(&layout.token_secret())
        .with_context(|| format!("cannot use {}", layout.token_secret().display()))?;
    Ok(tokens.issue(subject, ttl, scopes)?)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

fn log(config: &Config) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log)
        .with_context(|| format!("log {:?} is no filter", config.log))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

fn show(finding: &doctor::Finding) {
    let mark = match finding.grade {
        Grade::Ok => "ok     ",
        Grade::Warning => "warning",
        Grade::Missing => "MISSING",
    };
    say(&format!("{mark}  {:<13} {}", finding.what, finding.found));
    if let Some(remedy) = &finding.remedy {
        say(&format!("         {:<13} → {remedy}", ""));
    }
}

#[expect(clippy::print_stdout, reason = "a command's output")]
fn say(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stderr, reason = "a command's complaint")]
fn complain(line: &str) {
    eprintln!("{line}");
}

//! Every automation of this repository, as `cargo xtask <command>`. One file per command.

mod agent;
mod assets;
mod bench;
mod check;
mod demo;
mod firecracker;
mod fuzz;
mod image;
mod interrupt;
mod nested;
mod private_daemon;
mod probe;
mod process;
mod setup_host;
mod table;
mod test;
mod tidy;
mod workspace;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use workspace::Workspace;

/// Automation of the coppice repository.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install the Debian packages that building and running need (as root; otherwise list them).
    SetupHost,
    /// Build the guest agent as a static program.
    Agent,
    /// Make the built-in OCI images.
    Image {
        /// Directory for the archives.
        #[arg(long)]
        out: PathBuf,
    },
    /// Make everything a guest needs under target/assets: agent, kernel, initrd, images.
    Assets,
    /// Show the whole thing on real guests, checking every step.
    Demo,
    /// Measure what is promised about speed and memory; fail if a bound is missed.
    Bench {
        /// Fewer samples: a minute instead of several.
        #[arg(long)]
        quick: bool,
    },
    /// Feed parsers of hostile input with changed texts for a while. The tests do so for a second.
    Fuzz {
        /// How long.
        #[arg(long, default_value_t = 600)]
        seconds: u32,
        /// Repeat the run that has printed this number.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Formatting, clippy and tidy.
    Check,
    /// The rules that clippy cannot see: sizes, names, words, who depends on whom.
    Tidy,
    /// Build everything and run all tests, those on real guests too.
    Test {
        /// Passed on to the test runner.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let workspace = Workspace::open()?;
    match arguments.command {
        Command::SetupHost => setup_host::run(),
        Command::Agent => agent::build(&workspace).map(|path| println!("{}", path.display())),
        Command::Image { out } => image::run(&workspace, &out),
        Command::Assets => assets::run(&workspace),
        Command::Demo => demo::run(&workspace),
        Command::Bench { quick } => bench::run(&workspace, quick),
        Command::Fuzz { seconds, seed } => fuzz::run(&workspace, seconds, seed),
        Command::Check => check::run(&workspace),
        Command::Tidy => tidy::run(&workspace),
        Command::Test { arguments } => test::run(&workspace, &arguments),
    }
}

//! Running the program and writing down what it did.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::server::Fake;

/// The program in an empty environment.
pub(crate) fn coppice(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coppice"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

/// The program, told to talk to the fake.
pub(crate) fn coppice_at(fake: &Fake, args: &[&str]) -> Command {
    let mut command = coppice(args);
    command.env("COPPICE_HOST", &fake.address);
    command
}

/// Exit code, both outputs and what the fake was asked, as one text.
pub(crate) fn transcript(fake: &Fake, args: &[&str]) -> String {
    let output = coppice_at(fake, args).output().expect("it starts");
    let asked = fake.asked();
    let text = write_down(args, &output);
    format!("{text}--- asked\n{asked}\n").replace(&fake.address, "[ADDRESS]")
}

/// Exit code and both outputs as one text.
pub(crate) fn write_down(args: &[&str], output: &Output) -> String {
    format!(
        "$ coppice {}\nexit {}\n--- stdout\n{}--- stderr\n{}",
        args.join(" "),
        output.status.code().expect("it was not killed"),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    )
}

/// Runs with the given bytes as stdin.
pub(crate) fn with_stdin(mut command: Command, input: Vec<u8>) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // In a thread, since it reads no more while its output is not read.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it read its input");
    output
}

//! The shell script that the nested host is given to.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Names of the virtio ports, in the order in which QEMU is given them.
pub(crate) const PORTS: [&str; 3] = ["output", "status", "beats"];

/// Seconds between two signs of life.
pub(crate) const BEAT_SECONDS: u64 = 2;

/// A program and all it is told.
#[derive(Debug)]
pub(crate) struct Command<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: &'a [&'a OsStr],
    pub(crate) environment: &'a [(&'a str, &'a OsStr)],
    pub(crate) directory: &'a Path,
}

impl Command<'_> {
    /// Waits for the ports, gives signs of life on one, runs the program, says on another port what it says and on
    /// another one how it ended, and powers off.
    pub(crate) fn script(&self) -> Vec<u8> {
        let mut script = Vec::new();
        for (name, value) in self.environment {
            script.extend_from_slice(b"export ");
            script.extend_from_slice(name.as_bytes());
            script.push(b'=');
            quote(value, &mut script);
            script.push(b'\n');
        }
        script.extend_from_slice(b"until [ -e /dev/vport0p3 ]; do :; done\n");
        let beat = format!("while echo beat; do sleep {BEAT_SECONDS}; done > /dev/vport0p3 &\ncd ");
        script.extend_from_slice(beat.as_bytes());
        quote(self.directory.as_os_str(), &mut script);
        script.push(b'\n');
        quote(self.program.as_os_str(), &mut script);
        for argument in self.arguments {
            script.push(b' ');
            quote(argument, &mut script);
        }
        script.extend_from_slice(
            b" > /dev/vport0p1 2>&1\necho $? > /dev/vport0p2\necho o > /proc/sysrq-trigger\n\
              while :; do sleep 1; done\n",
        );
        script
    }
}

/// One word of the shell, whatever is in it.
fn quote(word: &OsStr, script: &mut Vec<u8>) {
    script.push(b'\'');
    for byte in word.as_bytes() {
        match byte {
            b'\'' => script.extend_from_slice(br"'\''"),
            byte => script.push(*byte),
        }
    }
    script.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_through_a_shell_as_they_are() {
        let hostile = ["it's", "$HOME `id`", "a\nb", "", "\\ \"x\""];
        for word in hostile {
            let mut line = b"printf %s ".to_vec();
            quote(OsStr::new(word), &mut line);
            let output = std::process::Command::new("sh")
                .arg("-c")
                .arg(OsStr::from_bytes(&line))
                .output()
                .expect("a shell");
            assert_eq!(String::from_utf8_lossy(&output.stdout), word);
        }
    }
}

//! The environment processes start with.

/// Where programs are looked up when the image does not say.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Defaults, then `layers` in order; a later value of the same name replaces the earlier one in its
/// place.
pub(crate) fn build(
    hostname: &str,
    home: &str,
    on_terminal: bool,
    layers: &[&[(String, String)]],
) -> Vec<(String, String)> {
    let mut env = vec![
        ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
        ("HOSTNAME".to_owned(), hostname.to_owned()),
    ];
    if on_terminal {
        env.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    env.push(("HOME".to_owned(), home.to_owned()));
    for (name, value) in layers.iter().copied().flatten() {
        match env.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => old.clone_from(value),
            None => env.push((name.clone(), value.clone())),
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn defaults_are_there_and_give_way() {
        let image = [pair("PATH", "/opt/bin"), pair("A", "1")];
        let request = [pair("A", "2"), pair("HOME", "/elsewhere")];
        assert_eq!(
            build("box", "/root", false, &[&image, &request]),
            [
                pair("PATH", "/opt/bin"),
                pair("HOSTNAME", "box"),
                pair("HOME", "/elsewhere"),
                pair("A", "2")
            ]
        );
        let plain = build("box", "/root", true, &[]);
        assert_eq!(
            plain,
            [
                pair("PATH", DEFAULT_PATH),
                pair("HOSTNAME", "box"),
                pair("TERM", "xterm"),
                pair("HOME", "/root")
            ]
        );
    }
}

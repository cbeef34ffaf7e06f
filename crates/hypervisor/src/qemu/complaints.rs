//! What QEMU complains about in its log.

/// The line that says the loaded state does not fit the RAM, if there is one. QEMU loads on in that case, with a
/// device that never answers again.
pub(super) fn inconsistency(text: &str) -> Option<&str> {
    text.lines().find(|line| line.contains("inconsistent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_complaint() {
        let text = "a warning\nqemu: VQ 0 size 0x10 Guest index 0x1 inconsistent with Host index 0x4: delta\n";
        assert!(inconsistency(text).is_some_and(|line| line.starts_with("qemu: VQ 0")));
        assert_eq!(inconsistency("all is well"), None);
    }
}

//! Whether files in memory tell apart, page by page, what was written to them and what was not.
//!
//! A kernel that backs such files with huge pages fills the rest of one with zeros when a page of it is written, and
//! tells of all of it as data. What Firecracker has not written would hide the image below, as zeros.

use std::fs;
use std::path::Path;

/// Where the kernel says what it does; nothing is there if it has no huge pages.
const SETTINGS: &str = "/sys/kernel/mm/transparent_hugepage";

/// Whether they do on this host now. An administrator may change that at any time.
#[must_use]
pub fn shmem_keeps_pages_apart() -> bool {
    let all = fs::read_to_string(Path::new(SETTINGS).join("shmem_enabled"));
    let sizes = fs::read_dir(SETTINGS).into_iter().flatten().flatten();
    let sizes: Vec<String> = sizes
        .filter_map(|entry| fs::read_to_string(entry.path().join("shmem_enabled")).ok())
        .collect();
    keeps_pages_apart(all.as_deref().unwrap_or_default(), &sizes)
}

/// `all` is the setting for all sizes, `sizes` are those of each size (Linux 6.11), which may leave it to that. The word
/// in brackets is chosen. `advise` is for memory that a program asks it for, which Firecracker does not.
fn keeps_pages_apart(all: &str, sizes: &[String]) -> bool {
    let is_huge = |word: &str| matches!(word, "always" | "within_size");
    match chosen(all) {
        // For tests of kernels, whatever anything else says.
        "force" => false,
        "deny" => true,
        all if sizes.is_empty() => !is_huge(all),
        all => !sizes.iter().any(|size| match chosen(size) {
            "inherit" => is_huge(all),
            size => is_huge(size),
        }),
    }
}

fn chosen(words: &str) -> &str {
    let found = words
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    found.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_known_in_every_way_of_setting_them() {
        let all = |word: &str| {
            "always within_size advise never deny force".replace(word, &format!("[{word}]"))
        };
        let size = |word: &str| {
            "always inherit within_size advise never".replace(word, &format!("[{word}]"))
        };
        for (word, by_itself, where_sizes_inherit, where_one_is_always) in [
            ("never", true, true, false),
            ("advise", true, true, false),
            ("deny", true, true, true),
            ("always", false, false, false),
            ("within_size", false, false, false),
            ("force", false, false, false),
        ] {
            let apart = |sizes: &[&str]| {
                let sizes: Vec<String> = sizes.iter().map(|word| size(word)).collect();
                keeps_pages_apart(&all(word), &sizes)
            };
            assert_eq!(apart(&[]), by_itself, "{word}, before Linux 6.11");
            assert_eq!(apart(&["never", "inherit"]), where_sizes_inherit, "{word}");
            assert_eq!(apart(&["always", "never"]), where_one_is_always, "{word}");
        }
        assert!(keeps_pages_apart(&all("always"), &[size("never")]));
        assert!(keeps_pages_apart("", &[]), "a kernel without huge pages");
    }
}

//! What `doctor` says of pagers of memory.

use super::{Finding, ok, warning};
use crate::app::pager_support;
use crate::config::Config;

/// Looks for what forks need that get their memory from a pager.
pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    let is_root = rustix::process::geteuid().is_root();
    vec![
        support(pager_support(config).await),
        user(config.pagers.uid, is_root),
    ]
}

/// Nothing depends on it: there are files.
fn support(found: Result<pager::Userfaultfd, String>) -> Finding {
    match found {
        Ok(found) if found.poison => {
            let from = if found.device {
                "/dev/userfaultfd"
            } else {
                "the system call"
            };
            ok("userfaultfd", format!("by {from}; pagers can be used"))
        }
        Ok(_) => warning(
            "userfaultfd",
            "pagers can be used; a machine whose memory is damaged hangs while coppiced is down"
                .to_owned(),
            "run Linux 6.6 or newer, where such a machine ends at once",
        ),
        Err(why) => warning(
            "userfaultfd",
            format!("no pager can be used: {why}"),
            "mend this, or leave memory_backend at auto: forks get their memory from file",
        ),
    }
}

fn user(uid: Option<u32>, is_root: bool) -> Finding {
    match (uid, is_root) {
        (Some(uid), true) if uid != 0 => ok("pager user", uid.to_string()),
        (Some(uid), false) => warning(
            "pager user",
            format!("pager_uid is {uid}, but only root can start pagers as another user"),
            "run coppiced as root, or leave pager_uid out",
        ),
        (_, true) => warning(
            "pager user",
            "pagers run as root, without network and with few system calls".to_owned(),
            "set pager_uid to the number of a user that owns nothing",
        ),
        (None, false) => ok("pager user", "the user of coppiced".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use pager::Userfaultfd;

    use super::*;
    use crate::doctor::Grade;

    #[test]
    fn a_host_without_userfaultfd_is_told_that_files_are_used() {
        let found = support(Err("this kernel has no userfaultfd".to_owned()));
        assert_eq!(found.grade, Grade::Warning, "instances run all the same");
        assert!(found.found.contains("this kernel has no userfaultfd"));
        assert!(found.remedy.unwrap().contains("from file"));
    }

    #[test]
    fn what_an_old_kernel_lacks_is_said() {
        let of = |poison| {
            support(Ok(Userfaultfd {
                device: true,
                unprivileged: true,
                poison,
            }))
        };
        assert_eq!(of(true).grade, Grade::Ok);
        assert_eq!(of(false).grade, Grade::Warning);
        assert!(of(false).remedy.unwrap().contains("6.6"));
    }

    #[test]
    fn pagers_should_not_be_root() {
        for uid in [None, Some(0)] {
            let found = user(uid, true);
            assert!(found.remedy.unwrap().contains("pager_uid"));
        }
        assert_eq!(user(Some(4711), true).grade, Grade::Ok);
        assert_eq!(user(None, false).grade, Grade::Ok);
        assert_eq!(user(Some(4711), false).grade, Grade::Warning);
    }
}

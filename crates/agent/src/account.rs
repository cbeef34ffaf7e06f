//! Users and groups of the guest, read from its own files. The C library's way would need its
//! shared modules.

use protocol::{Failure, FailureKind};

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Resolves `user[:group]` as image configurations mean it: names or numbers; nothing is root. A
/// number that is in no file is taken as it is, with group 0. Supplementary groups are looked up
/// only when no group is named.
pub(crate) fn resolve(user: &str, passwd: &str, group: &str) -> Result<Account, Failure> {
    let (user, group_name) = match user.split_once(':') {
        Some((user, group_name)) => (user, Some(group_name).filter(|name| !name.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let entry = find_user(user, passwd);
    let mut account = match (&entry, user.parse()) {
        (Some(entry), _) => Account {
            uid: entry.uid,
            gid: entry.gid,
            groups: Vec::new(),
            home: entry.home.to_owned(),
        },
        (None, Ok(uid)) => Account {
            uid,
            gid: 0,
            groups: Vec::new(),
            home: "/".to_owned(),
        },
        (None, Err(_)) => {
            return Err(Failure::new(
                FailureKind::NotFound,
                format!("no user {user} in the guest"),
            ));
        }
    };
    match (group_name, &entry) {
        (Some(name), _) => {
            account.gid = find_group(name, group)
                .or_else(|| name.parse().ok())
                .ok_or_else(|| {
                    Failure::new(
                        FailureKind::NotFound,
                        format!("no group {name} in the guest"),
                    )
                })?;
        }
        (None, Some(entry)) => account.groups = groups_of(entry.name, group),
        (None, None) => {}
    }
    if account.home.is_empty() {
        "/".clone_into(&mut account.home);
    }
    Ok(account)
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Names win over numbers, so that a user called `1000` can be meant.
fn find_user<'a>(user: &str, passwd: &'a str) -> Option<PasswdEntry<'a>> {
    let entries = || passwd.lines().filter_map(parse_passwd);
    entries().find(|entry| entry.name == user).or_else(|| {
        user.parse::<u32>()
            .ok()
            .and_then(|uid| entries().find(|entry| entry.uid == uid))
    })
}

fn parse_passwd(line: &str) -> Option<PasswdEntry<'_>> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1).unwrap_or("/");
    Some(PasswdEntry {
        name,
        uid,
        gid,
        home,
    })
}

fn find_group(name: &str, group: &str) -> Option<u32> {
    parse_groups(group)
        .find(|(entry, _, _)| *entry == name)
        .map(|(_, gid, _)| gid)
}

fn groups_of(user: &str, group: &str) -> Vec<u32> {
    parse_groups(group)
        .filter(|(_, _, members)| members.split(',').any(|member| member == user))
        .map(|(_, gid, _)| gid)
        .collect()
}

fn parse_groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# remark\nweb:x:33:34:Web:/srv/web:/bin/false\nshort:x:7\n1000:x:5:6::/odd:\nbare:x:8:9\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlogs:x:40:web,root\nstaff:x:50:web\nbroken\n";

    #[track_caller]
    fn check(user: &str, expected: Option<(u32, u32, &[u32], &str)>) {
        let found = resolve(user, PASSWD, GROUP).ok();
        let expected = expected.map(|(uid, gid, groups, home)| Account {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.to_owned(),
        });
        assert_eq!(found, expected, "{user}");
    }

    #[test]
    fn users_are_found_as_image_configurations_mean_them() {
        check("", Some((0, 0, &[40], "/root")));
        check("root", Some((0, 0, &[40], "/root")));
        check("web", Some((33, 34, &[40, 50], "/srv/web")));
        check("33", Some((33, 34, &[40, 50], "/srv/web")));
        check("web:root", Some((33, 0, &[], "/srv/web")));
        check("web:99", Some((33, 99, &[], "/srv/web")));
        check("web:", Some((33, 34, &[40, 50], "/srv/web")));
        check(":staff", Some((0, 50, &[], "/root")));
        check("4711", Some((4711, 0, &[], "/")));
        check("4711:4712", Some((4711, 4712, &[], "/")));
        check("1000", Some((5, 6, &[], "/odd")));
        check("bare", Some((8, 9, &[], "/")));
        check("nobody-here", None);
        check("short", None);
        check("web:nothing", None);
        check("-1", None);
    }
}

//! How the RAM of a fork comes to it: mapped from files, or page by page from a pager.

use std::fmt;

use crate::Refusal;

/// What is wanted, where somebody may say so: the server's configuration, a template, a fork request.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum BackendWish {
    /// What fits the memory image.
    #[default]
    Auto,
    /// The image is loaded and mapped.
    File,
    /// A pager answers page faults (userfaultfd).
    Uffd,
}

/// What a machine's RAM comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The verified image, mapped; clean pages are shared by all forks.
    File,
    /// A pager; each page that was touched belongs to the machine alone.
    Uffd,
}

impl Backend {
    /// The name on the wire and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Uffd => "uffd",
        }
    }
}

/// What is done with the hot pages of a template: those that forks touch first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Prefetch {
    /// Recorded by the first forks, filled or mapped ahead of faults in later ones.
    #[default]
    On,
    /// Neither recorded nor used.
    Off,
    /// Recorded anew; forks get nothing ahead meanwhile.
    Record,
}

/// What an instance says about the memory of its forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct MemorySpec {
    /// Backend of its forks; none = as the server says.
    pub backend: Option<BackendWish>,
    /// Hot pages of its forks.
    pub prefetch: Prefetch,
}

/// How RAM lies in a memory image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RamForm {
    /// Layers on top of each other, at least one.
    pub layers: usize,
    /// At least one of them is compressed.
    pub compressed: bool,
}

impl RamForm {
    /// One layer whose bytes are the guest's.
    #[must_use]
    pub fn is_plain(self) -> bool {
        self.layers <= 1 && !self.compressed
    }
}

/// What a machine does with the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageUse {
    /// One of many that run from it.
    Shared,
    /// The only one that ever will.
    Alone,
    /// It gets a full copy.
    Copy,
}

/// Who wants what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Wishes {
    /// Of the fork request.
    pub fork: Option<BackendWish>,
    /// Of the template, or whatever instance is forked.
    pub template: Option<BackendWish>,
    /// Of the server.
    pub server: BackendWish,
}

/// Whether a machine can get its RAM from a pager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paging<'a> {
    /// It can.
    Can,
    /// Its VMM, of this name, maps files only.
    NotBy(&'a str),
    /// This host has no pagers, for this reason.
    NotHere(&'a str),
}

/// Ends a sentence that begins with what is wished.
impl fmt::Display for Paging<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Can => write!(out, "which can be had"),
            Self::NotBy(vmm) => write!(
                out,
                "which {vmm} cannot do: it maps memory from files only; use auto or file, or a VMM with a pager (firecracker)"
            ),
            Self::NotHere(why) => write!(
                out,
                "which this host cannot do: {why}; use auto or file, and see coppiced doctor"
            ),
        }
    }
}

/// Decides what the RAM of a fork comes from. The fork's own wish goes before its template's, and that before the
/// server's.
///
/// A server's wish is for those machines that it fits; that of a fork or a template is refused where it cannot be
/// had, because somebody asked for this machine.
pub fn choose_backend(
    wishes: Wishes,
    form: RamForm,
    usage: ImageUse,
    paging: Paging<'_>,
) -> Result<Backend, Refusal> {
    let pager = paging == Paging::Can;
    let (wish, asked_for) = match (wishes.fork, wishes.template) {
        (Some(wish), _) => (wish, Some("memory_backend")),
        (None, Some(wish)) => (wish, Some("memory_backend of the template")),
        (None, None) => (wishes.server, None),
    };
    match wish {
        BackendWish::File => Ok(Backend::File),
        BackendWish::Auto if form.is_plain() || !pager => Ok(Backend::File),
        BackendWish::Auto => Ok(match usage {
            ImageUse::Shared => Backend::Uffd,
            // Nothing is shared, and what a pager has filled would be written out again by the next standby.
            ImageUse::Alone | ImageUse::Copy => Backend::File,
        }),
        BackendWish::Uffd if !pager => match asked_for {
            None => Ok(Backend::File),
            Some(field) => Err(Refusal::request(format!("{field} is uffd, {paging}"))),
        },
        BackendWish::Uffd if usage == ImageUse::Copy => match wishes.fork {
            None => Ok(Backend::File),
            Some(_) => Err(Refusal::request(
                "memory_backend is uffd, but a full copy of the memory is made from files; leave it out, or share the memory of a template",
            )),
        },
        BackendWish::Uffd => Ok(Backend::Uffd),
    }
}

/// What is done for one fork about hot pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HotPlan {
    /// What it touches is recorded.
    pub record: Option<Recording>,
    /// What others have touched is filled or mapped ahead.
    pub replay: bool,
}

/// What becomes of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recording {
    /// It is put together with those before it.
    Adds,
    /// It takes their place: what forks do first has changed since, or will.
    Renews,
}

/// One fork in so many confirms or corrects what is known, until enough have.
pub const REFRESH_EVERY: u64 = 8;

/// With one fork in so many, all begins anew: what nobody touches any more is not filled for ever. With those that
/// then complete the set, less than three in a hundred are slower for that.
pub const RENEW_EVERY: u64 = 128;

/// Decides what is done for the next fork of an image: `recordings` of `enough` were put together, and it is the
/// `nth` fork (from 0) since the image is in use. A machine that is recorded gets nothing ahead: what was filled
/// ahead would be missing in the recording.
#[must_use]
pub fn plan_hot_pages(prefetch: Prefetch, recordings: u32, enough: u32, nth: u64) -> HotPlan {
    let is_last_of = |every: u64| nth % every == every - 1;
    let record = match prefetch {
        Prefetch::Off => None,
        Prefetch::Record => (recordings < enough).then_some(Recording::Adds),
        Prefetch::On if recordings == 0 => Some(Recording::Adds),
        Prefetch::On if recordings < enough => is_last_of(REFRESH_EVERY).then_some(Recording::Adds),
        Prefetch::On => is_last_of(RENEW_EVERY).then_some(Recording::Renews),
    };
    HotPlan {
        record,
        replay: prefetch == Prefetch::On && recordings > 0 && record.is_none(),
    }
}

/// Whether known hot pages are mapped ahead in a machine that maps its image. Nobody waits for one that is prepared
/// before it is asked for. In any other one the guest maps a page that is in memory as quickly by itself, on the same
/// processors; so that pays only where pages may have been swapped out.
#[must_use]
pub fn maps_ahead(prepared: bool, host_has_swapped: bool) -> bool {
    prepared || host_has_swapped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RefusalKind;

    const WISHES: [BackendWish; 3] = [BackendWish::Auto, BackendWish::File, BackendWish::Uffd];
    const PAGING: [Paging<'_>; 3] = [Paging::NotBy("vmm"), Paging::NotHere("reason"), Paging::Can];
    const USES: [ImageUse; 3] = [ImageUse::Shared, ImageUse::Alone, ImageUse::Copy];
    const PLAIN: RamForm = RamForm {
        layers: 1,
        compressed: false,
    };

    fn maybe() -> impl Iterator<Item = Option<BackendWish>> + Clone {
        std::iter::once(None).chain(WISHES.map(Some))
    }

    type Case = (
        Wishes,
        RamForm,
        ImageUse,
        bool,
        Result<Backend, RefusalKind>,
    );

    /// Every question that can be asked, with its answer.
    fn all() -> Vec<Case> {
        let mut all = Vec::new();
        for (fork, template) in maybe().flat_map(|fork| maybe().map(move |other| (fork, other))) {
            for server in WISHES {
                let wishes = Wishes {
                    fork,
                    template,
                    server,
                };
                for (layers, compressed) in [(1, false), (1, true), (2, false), (4, true)] {
                    let form = RamForm { layers, compressed };
                    for usage in USES {
                        for paging in PAGING {
                            let pager = paging == Paging::Can;
                            let answer = choose_backend(wishes, form, usage, paging);
                            let answer = answer.map_err(|refusal| refusal.kind);
                            all.push((wishes, form, usage, pager, answer));
                        }
                    }
                }
            }
        }
        all
    }

    #[test]
    fn whatever_is_asked_the_rules_hold() {
        for (wishes, form, usage, pager, answer) in all() {
            let case = format!("{wishes:?} {form:?} {usage:?} pager: {pager} → {answer:?}");
            let wish = wishes.fork.or(wishes.template).unwrap_or(wishes.server);
            if answer == Ok(Backend::Uffd) {
                assert!(pager, "nobody gets a pager that the VMM cannot use: {case}");
                assert_ne!(usage, ImageUse::Copy, "{case}");
                assert_ne!(wish, BackendWish::File, "{case}");
            }
            if answer.is_err() {
                assert_eq!(answer, Err(RefusalKind::InvalidRequest), "{case}");
                assert_eq!(
                    wish,
                    BackendWish::Uffd,
                    "only what cannot be had is refused: {case}"
                );
                assert!(
                    wishes.fork.or(wishes.template).is_some(),
                    "a server's default refuses nobody: {case}"
                );
            }
            if wish == BackendWish::Auto && usage == ImageUse::Shared && pager {
                assert_eq!(answer == Ok(Backend::File), form.is_plain(), "{case}");
            }
            if wish == BackendWish::Uffd && wishes.fork == Some(wish) {
                let can = pager && usage != ImageUse::Copy;
                assert_eq!(answer == Ok(Backend::Uffd), can, "{case}");
            }
        }
    }

    #[test]
    fn a_wish_that_nobody_has_changes_nothing() {
        for (wishes, form, usage, pager, answer) in all() {
            if let Some(fork) = wishes.fork {
                let other = Wishes {
                    template: None,
                    server: BackendWish::Auto,
                    fork: Some(fork),
                };
                let paging = if pager { Paging::Can } else { PAGING[0] };
                let same = choose_backend(other, form, usage, paging);
                assert_eq!(same.map_err(|refusal| refusal.kind), answer);
            }
        }
    }

    #[test]
    fn a_refusal_names_the_vmm_and_says_what_helps() {
        let template = Wishes {
            template: Some(BackendWish::Uffd),
            ..Wishes::default()
        };
        let refused = |paging| {
            let refusal = choose_backend(template, PLAIN, ImageUse::Shared, paging).unwrap_err();
            refusal.message
        };
        let by_vmm = refused(Paging::NotBy("qemu"));
        let by_host = refused(Paging::NotHere("no userfaultfd"));
        for (message, reason) in [(by_vmm, "qemu"), (by_host, "no userfaultfd")] {
            for word in ["of the template", "auto or file", reason] {
                assert!(message.contains(word), "{message}");
            }
        }
    }

    #[test]
    fn the_first_fork_is_recorded_and_the_next_have_its_pages() {
        let plan = |prefetch, recordings, nth| plan_hot_pages(prefetch, recordings, 3, nth);
        let recorded = |recording| HotPlan {
            record: Some(recording),
            replay: false,
        };
        let record = recorded(Recording::Adds);
        let unrecorded = |replay| HotPlan {
            record: None,
            replay,
        };
        let (replay, nothing) = (unrecorded(true), unrecorded(false));
        assert_eq!(plan(Prefetch::On, 0, 0), record);
        assert_eq!(plan(Prefetch::On, 1, 1), replay);
        assert_eq!(plan(Prefetch::On, 1, REFRESH_EVERY - 1), record);
        assert_eq!(plan(Prefetch::On, 3, REFRESH_EVERY - 1), replay);
        let renew = RENEW_EVERY - 1;
        assert_eq!(plan(Prefetch::On, 3, renew), recorded(Recording::Renews));
        assert_eq!(plan(Prefetch::On, 1, renew), record, "not enough is known");
        assert_eq!(
            plan(Prefetch::On, 3, renew + RENEW_EVERY),
            recorded(Recording::Renews)
        );
        assert_eq!(plan(Prefetch::Record, 2, 1), record);
        assert_eq!(plan(Prefetch::Record, 3, renew), nothing);
        assert_eq!(plan(Prefetch::Record, 3, 1), nothing);
        assert_eq!(plan(Prefetch::Off, 3, 0), nothing);
    }

    #[test]
    fn pages_are_mapped_ahead_where_nobody_waits_or_a_disk_would_be_waited_for() {
        assert!(!maps_ahead(false, false));
        assert!(maps_ahead(true, false) && maps_ahead(false, true));
    }
}

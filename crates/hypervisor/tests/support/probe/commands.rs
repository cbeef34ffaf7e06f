//! The commands. A line is a verb and its arguments; the answer is one line.
//!
//! ```text
//! put ram|disk NAME WORD        remembers; empty
//! get ram|disk NAME             the word, or empty
//! tag FIRST COUNT SEED          fills pages; empty
//! wrong FIRST COUNT SEED        number of pages that do not hold that
//! zeros FIRST COUNT             number of pages that are zero
//! sum FIRST COUNT               checksum of pages
//! inflate FIRST COUNT           gives pages back by the balloon; empty
//! storm FIRST COUNT ROUNDS      gives pages back and takes them again; number of pages that were not as they should
//! beats                         rounds of the main loop since the boot
//! letters ROUNDS                a dot on the serial line every so many rounds; none for 0
//! turns PAGES                   from now on two processors tag and check, so many pages each in turn; one for 0
//! roam FIRST COUNT              the second processor reads pages at random until it is given other work; empty
//! roamed                        how many it has read
//! off                           powers off
//! ```

use crate::pages::{Verb, Work, checksum};
use crate::text::{Text, number};
use crate::words::Shelf;
use crate::{Devices, Settings, second};

const NO_SECOND: &[u8] = b"error: there is no second processor";

pub fn execute(
    line: &[u8],
    devices: &mut Devices,
    beats: u64,
    settings: &mut Settings,
    answer: &mut Text,
) {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut words = line.splitn(4, |byte| *byte == b' ');
    let mut word = || words.next().unwrap_or_default();
    let (verb, first, second, third) = (word(), word(), word(), word());
    let (a, b, c) = (number(first), number(second), number(third));
    let mut shelf = match first {
        b"disk" => Shelf::Disk(&mut devices.disk),
        _ => Shelf::Ram,
    };
    match verb {
        b"put" => {
            if !shelf.put(second, third) {
                answer.push(b"error: not kept");
            }
        }
        b"get" => shelf.get(second, |word| answer.push(word)),
        b"tag" | b"wrong" | b"zeros" => pages(verb, [a, b, c], settings, answer),
        b"inflate" => match &mut devices.balloon {
            Some(balloon) => balloon.inflate(a, b),
            None => answer.push(b"error: no balloon"),
        },
        b"storm" => match &mut devices.balloon {
            Some(balloon) => answer.push_number(balloon.storm(a, b, c)),
            None => answer.push(b"error: no balloon"),
        },
        b"sum" => answer.push_number(checksum(a, b)),
        b"beats" => answer.push_number(beats),
        b"letters" => settings.letters = a,
        b"turns" => settings.turns = a,
        b"roam" => {
            if second::roam(a, b).is_none() {
                answer.push(NO_SECOND);
            }
        }
        b"roamed" => answer.push_number(second::roamed()),
        b"off" => crate::power_off(),
        _ => answer.push(b"error: unknown command"),
    }
}

fn pages(verb: &[u8], [first, count, seed]: [u64; 3], settings: &Settings, answer: &mut Text) {
    let work = Work {
        verb: match verb {
            b"tag" => Verb::Tag,
            b"wrong" => Verb::Wrong,
            _ => Verb::Zeros,
        },
        first,
        count,
        seed,
    };
    let counted = match settings.turns {
        0 => work.turns(count, 0),
        turns => match second::share(&work, turns) {
            Some(counted) => counted,
            None => return answer.push(NO_SECOND),
        },
    };
    if !matches!(work.verb, Verb::Tag) {
        answer.push_number(counted);
    }
}

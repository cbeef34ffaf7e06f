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
//! beats                         rounds of the main loop since the boot
//! letters ROUNDS                a dot on the serial line every so many rounds; none for 0
//! off                           powers off
//! ```

use crate::Devices;
use crate::pages;
use crate::text::{Text, number};
use crate::words::Shelf;

pub fn execute(
    line: &[u8],
    devices: &mut Devices,
    beats: u64,
    letters: &mut u64,
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
        b"tag" => pages::tag(a, b, c),
        b"wrong" => answer.push_number(pages::wrong(a, b, c)),
        b"zeros" => answer.push_number(pages::zeros(a, b)),
        b"inflate" => match &mut devices.balloon {
            Some(balloon) => balloon.inflate(a, b),
            None => answer.push(b"error: no balloon"),
        },
        b"sum" => answer.push_number(pages::checksum(a, b)),
        b"beats" => answer.push_number(beats),
        b"letters" => *letters = a,
        b"off" => crate::power_off(),
        _ => answer.push(b"error: unknown command"),
    }
}

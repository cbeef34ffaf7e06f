//! The serial line, for people.

use crate::sys;

const DATA: u16 = 0x3f8;
const STATUS: u16 = 0x3fd;
const READY: u8 = 0x20;

pub fn print(bytes: &[u8]) {
    for byte in bytes {
        while sys::in8(STATUS) & READY == 0 {
            sys::relax();
        }
        sys::out8(DATA, *byte);
    }
}

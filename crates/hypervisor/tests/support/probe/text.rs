//! A line of text in a fixed place, and numbers in it.

const ROOM: usize = 512;

pub struct Text {
    bytes: [u8; ROOM],
    length: usize,
}

impl Text {
    pub fn new() -> Self {
        Self {
            bytes: [0; ROOM],
            length: 0,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Adds what there is room for.
    pub fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.length < ROOM {
                self.bytes[self.length] = *byte;
                self.length += 1;
            }
        }
    }

    pub fn push_number(&mut self, number: u64) {
        let mut digits = [0; 20];
        let (mut at, mut rest) = (digits.len(), number);
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return self.push(&digits[at..]);
            }
        }
    }
}

/// A decimal number; what is no digit ends it.
pub fn number(word: &[u8]) -> u64 {
    word.iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |sum: u64, byte| {
            sum.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'))
        })
}

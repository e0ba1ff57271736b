//! A hash over everything that went into the shards and came out: two runs of a seed must agree on it.

/// The running hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trace {
    hash: u64,
    words: u64,
}

impl Default for Trace {
    fn default() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, words: 0 }
    }
}

impl Trace {
    /// Takes in one number.
    pub fn word(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        self.words += 1;
    }

    /// Takes in bytes and their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    /// The hash of everything so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash ^ self.words
    }
}

//! What the generator is asked to do, and what that needs of a server.

use super::dice::Dice;

/// Seconds without any progress after which the generator gives up. All stops and starts of an act together take less, and so
/// does a stream that waits in vain for a message that was refused.
const PATIENCE_S: u64 = 45;
/// The first account of those that only wait.
const WAITING_FIRST: u64 = 10_000;
/// More messages per second than a server takes, for loads that send as fast as they can.
const UNPACED_PER_S: u64 = 60_000;

/// A load of `tern-load`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Load {
    /// Its mode and options.
    pub(super) words: Vec<String>,
    pub(super) phones: u64,
    pub(super) body_bytes: u64,
    /// All messages; where nothing paces them, more than there will be.
    pub(super) messages: u64,
    pub(super) is_paced: bool,
    /// Whether mail waits for phones that are away.
    pub(super) stores: bool,
}

impl Load {
    /// Phones that talk or leave mail for each other.
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let body_bytes = dice.pick(&[0, 16, 40, 128, 128, 128, 1_000, 8_000, 30_000]);
        let phones = dice.pick(&[2, 4, 20, 100, 300, 600]);
        let seconds = dice.range(3, 8);
        match dice.range(0, 3) {
            0 if body_bytes <= 1_000 => {
                let window = dice.pick(&[1, 2, 8, 32]);
                let words = [("--window", window), ("--duration", seconds)];
                let load = Self::new("pairs", phones, body_bytes, seconds * UNPACED_PER_S, &words);
                Self { is_paced: false, ..load }
            }
            1 => {
                let most = (24 << 20) / (body_bytes + 256);
                let messages = dice.pick(&[phones, 1_000, 5_000, 30_000]).min(most);
                let load = Self::new("offline", phones, body_bytes, messages, &[("--messages", messages)]);
                Self { stores: true, ..load }
            }
            2 => {
                let rate = paced(dice, body_bytes);
                let words = [("--rate", rate), ("--flaps", dice.range(1, 30)), ("--duration", seconds)];
                Self::new("flap", phones, body_bytes, seconds * rate, &words)
            }
            _ => {
                let rate = paced(dice, body_bytes);
                let words = [("--rate", rate), ("--duration", seconds)];
                Self::new("pairs", phones, body_bytes, seconds * rate, &words)
            }
        }
    }

    /// Phones that wait beside them, and sometimes drop all at once in the end.
    pub(super) fn draw_waiting(dice: &mut Dice) -> Self {
        let phones = dice.pick(&[10, 100, 300]);
        let words = [("--first", WAITING_FIRST), ("--hold", dice.range(2, 8))];
        let mut load = Self::new("idle", phones, 0, 0, &words);
        if dice.chance(50) {
            load.words.push("--storm".into());
        }
        load
    }

    /// Those phones come once more, and nothing may wait for them.
    pub(super) fn verification(phones: u64) -> Self {
        let mut load = Self::new("pairs", phones, 128, 0, &[("--window", 1), ("--duration", 1)]);
        load.words.push("--verify-only".into());
        load
    }

    fn new(mode: &str, phones: u64, body_bytes: u64, messages: u64, options: &[(&str, u64)]) -> Self {
        let common = [("--phones", phones), ("--body", body_bytes), ("--patience", PATIENCE_S)];
        let options = common.iter().chain(options);
        let options = options.flat_map(|(name, value)| [(*name).to_string(), value.to_string()]);
        let words = [mode.to_string()].into_iter().chain(options).collect();
        Self { words, phones, body_bytes, messages, is_paced: true, stores: false }
    }

    /// Messages of each sender.
    pub(super) fn each(&self) -> u64 {
        let senders = if self.stores { self.phones / 2 } else { self.phones };
        self.messages.div_ceil(senders)
    }
}

/// Messages per second that a small drive can take.
fn paced(dice: &mut Dice, body_bytes: u64) -> u64 {
    dice.pick(&[20, 300, 2_000, 6_000]).min((4 << 20) / (body_bytes + 256))
}

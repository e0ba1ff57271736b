//! What it takes to seal and to open a record with each of the two cryptography libraries:
//! `cargo run --release -p tern-protocol --example aead`.
//!
//! Keys are ready for use and lie as those of sessions that talk do: two in a box for each phone. Phones take turns in no
//! order, so that with many of them their keys are in no near cache. The last line is a JSON object: nanoseconds a record,
//! copying its bytes to where they are changed included. Of short rounds, in which the libraries take turns, the fastest
//! is told: whatever else the machine does only makes one slower.

use std::hint::black_box;
use std::time::Instant;

/// Phones that talk.
const PHONE_COUNTS: [usize; 2] = [1_000, 10_000];
/// Records on the wire: one with a message of 128 bytes, and one with its ticks.
const RECORD_BYTES: [usize; 2] = [190, 60];
/// Of a record's bytes, its header and its tag.
const HEADER_BYTES: usize = 3;
const TAG_BYTES: usize = 16;
/// Records of a round, and how many rounds.
const ROUND_COUNT: usize = 10_000;
const ROUNDS: usize = 100;

/// One library's AES-256-GCM.
trait Aead: Sized {
    fn new(key: [u8; 32]) -> Self;
    /// Encrypts in place; the tag.
    fn seal(&self, plain: &mut [u8]) -> [u8; TAG_BYTES];
    /// Decrypts in place; the tag is at the end.
    fn open(&self, sealed: &mut [u8]);
}

/// The libraries have the same interface and types of their own. What a nonce is makes no difference here.
macro_rules! aead {
    ($name:ident, $library:ident) => {
        struct $name($library::aead::LessSafeKey);

        impl Aead for $name {
            fn new(key: [u8; 32]) -> Self {
                let key = $library::aead::UnboundKey::new(&$library::aead::AES_256_GCM, &key);
                Self($library::aead::LessSafeKey::new(key.expect("32 bytes are a key")))
            }

            fn seal(&self, plain: &mut [u8]) -> [u8; TAG_BYTES] {
                use $library::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key([7; 12]);
                let tag = self.0.seal_in_place_separate_tag(nonce, Aad::empty(), plain);
                tag.expect("a record is short").as_ref().try_into().expect("a tag has 16 bytes")
            }

            fn open(&self, sealed: &mut [u8]) {
                use $library::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key([7; 12]);
                self.0.open_in_place(nonce, Aad::empty(), sealed).expect("its own record");
            }
        }
    };
}

aead!(Ring, ring);
aead!(AwsLc, aws_lc_rs);

/// The keys of one phone: of its session's two directions.
type Keys<A> = Box<[A; 2]>;

/// One library, and so many phones.
struct Side<A> {
    phones: Vec<Keys<A>>,
    plain: Vec<u8>,
    /// All phones have keys of the same value, so that one record opens for each of them: what is in which cache goes by
    /// where keys lie, and no other memory comes into it.
    sealed: Vec<u8>,
    /// Nanoseconds a record, of the fastest round.
    seal_ns: f64,
    open_ns: f64,
}

impl<A: Aead> Side<A> {
    fn new(phone_count: usize, plain_bytes: usize) -> Self {
        let keys = || Box::new([A::new([1; 32]), A::new([2; 32])]);
        let plain = vec![0x5a; plain_bytes];
        let mut sealed = plain.clone();
        let tag = A::new([2; 32]).seal(&mut sealed);
        sealed.extend_from_slice(&tag);
        let phones = (0..phone_count).map(|_| keys()).collect();
        Self { phones, plain, sealed, seal_ns: f64::INFINITY, open_ns: f64::INFINITY }
    }

    fn round(&mut self, turns: &[usize]) {
        let mut buffer = self.plain.clone();
        self.seal_ns = self.seal_ns.min(nanoseconds(turns, |phone| {
            buffer.copy_from_slice(&self.plain);
            black_box(self.phones[phone][0].seal(black_box(&mut buffer)));
        }));
        let mut buffer = self.sealed.clone();
        self.open_ns = self.open_ns.min(nanoseconds(turns, |phone| {
            buffer.copy_from_slice(&self.sealed);
            self.phones[phone][1].open(black_box(&mut buffer));
        }));
    }

    fn to_json(&self) -> String {
        format!("{{\"seal_ns\":{:.0},\"open_ns\":{:.0}}}", self.seal_ns, self.open_ns)
    }
}

fn nanoseconds(turns: &[usize], mut call: impl FnMut(usize)) -> f64 {
    let started = Instant::now();
    (0..ROUND_COUNT).for_each(|n| call(turns[n % turns.len()]));
    started.elapsed().as_nanos() as f64 / ROUND_COUNT as f64
}

/// All phones once, in no order (xorshift64*).
fn turns(phone_count: usize) -> Vec<usize> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |end: usize| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        ((u128::from(state.wrapping_mul(0x2545_f491_4f6c_dd1d)) * end as u128) >> 64) as usize
    };
    let mut turns: Vec<usize> = (0..phone_count).collect();
    (1..phone_count).rev().for_each(|end| turns.swap(end, below(end + 1)));
    turns
}

/// The field of the result for so many phones and records of so many bytes.
fn measure(phone_count: usize, record_bytes: usize) -> String {
    let plain_bytes = record_bytes - HEADER_BYTES - TAG_BYTES;
    let turns = turns(phone_count);
    let mut ring = Side::<Ring>::new(phone_count, plain_bytes);
    let mut aws_lc = Side::<AwsLc>::new(phone_count, plain_bytes);
    for _ in 0..ROUNDS {
        ring.round(&turns);
        aws_lc.round(&turns);
    }
    format!(
        "\"phones_{phone_count}_record_{record_bytes}\":{{\"ring\":{},\"aws_lc\":{}}}",
        ring.to_json(),
        aws_lc.to_json()
    )
}

fn main() {
    let each = PHONE_COUNTS.iter().flat_map(|phones| RECORD_BYTES.map(|bytes| measure(*phones, bytes)));
    println!("{{{}}}", each.collect::<Vec<_>>().join(","));
}

//! What a phone that is logged in may say, at a whole shard: any frames in any order, bad ones and half ones, with time
//! that passes and connections that break between them. Nothing panics, limits hold, the shard goes on speaking the
//! protocol, and another phone does not notice.
//!
//! Each step is a byte that chooses what is said and the bytes of its fields.
#![no_main]

mod world;

use libfuzzer_sys::fuzz_target;
use tern_core::limits::Limits;
use tern_protocol::ids::{AccountId, DeviceId, MessageId};
use tern_protocol::phone::client::{Client, ClientConfig, Event};
use tern_protocol::phone::frame::{ClientFrame, PresenceState, ServerFrame};
use tern_protocol::phone::noise::KeyPair;
use world::{SERVER, World};

/// Connections that one input may have.
const LINE_COUNT_MAX: usize = 8;
/// Time that may pass in steps: less than a phone's patience, so that nobody is given up for silence.
const STEPS_MS_MAX: u64 = 2_000;
/// Bytes of the longest body, by the limit below; one more is too large.
const BODY_BYTES: usize = 1_000;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        body_bytes: BODY_BYTES,
        window_count: 4,
        mailbox_count: 16,
        connection_count: 16,
        account_count: 4,
        account_asks_burst: 20,
        account_asks_per_s: 10,
        account_messages_burst: 40,
        account_messages_per_s: 10,
        edge_backlog_bytes: 2 * BODY_BYTES + 4096,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    let mut ann = Phone::log_in(&mut world, "ann", 2);
    let mut eve = Phone::log_in(&mut world, "eve", 3);
    let mut fields = Fields { rest: bytes, passed_ms: 0 };
    while !fields.rest.is_empty() {
        if world.is_over(eve.line) {
            if eve.line + 1 >= LINE_COUNT_MAX {
                break;
            }
            eve = Phone::log_in(&mut world, "eve", 3);
            if eve.account.is_none() {
                // She has revoked herself.
                break;
            }
        }
        eve.step(&mut world, &ann, &mut fields);
        eve.hear(&mut world);
        ann.hear(&mut world);
        let counters = world.shard.counters();
        assert!(counters.sessions_now <= 2 && counters.accounts_now == 2, "{counters:?}");
        assert!(counters.edge_bytes_now <= limits.edge_bytes as u64, "{counters:?}");
        // Of ticks a mailbox takes four times as many.
        assert!(counters.mail_count_now <= 2 * 5 * u64::from(limits.mailbox_count), "{counters:?}");
    }
    assert!(!world.is_over(ann.line), "somebody else ends a phone's connection");
    let heard = ann.pong_count;
    ann.say(&mut world, &ClientFrame::Ping { token: 77 });
    ann.hear(&mut world);
    assert_eq!(ann.pong_count, heard + 1, "she is answered as ever");
});

struct Phone {
    line: usize,
    client: Client,
    account: Option<AccountId>,
    pong_count: u32,
}

impl Phone {
    fn log_in(world: &mut World, name: &str, key: u8) -> Self {
        let line = world.come([9, 0, 0, key]);
        let client = Client::new(ClientConfig {
            name: name.into(),
            keys: KeyPair::from_seed([key; 32]),
            server_key: Some(SERVER.public),
            ticket: None,
            register: true,
            partition_hint: None,
            seed: [10 + line as u8; 32],
        });
        let mut phone = Self { line, client, account: None, pong_count: 0 };
        phone.flush(world);
        phone.hear(world);
        phone.flush(world);
        world.pass_ms(5);
        phone.hear(world);
        phone
    }

    fn flush(&mut self, world: &mut World) {
        let mut flight = Vec::new();
        self.client.flush(&mut flight);
        world.hear(self.line, &flight);
    }

    fn say(&mut self, world: &mut World, frame: &ClientFrame<'_>) {
        self.client.send(frame);
        self.flush(world);
    }

    /// Takes what the shard says, which is the protocol.
    fn hear(&mut self, world: &mut World) {
        let said = world.said(self.line);
        let heard = self.client.receive(&said, &mut |event| match event {
            Event::Welcome { account, .. } => self.account = Some(account),
            Event::Frame(ServerFrame::Pong { .. }) => self.pong_count += 1,
            _ => {}
        });
        heard.expect("the shard speaks the protocol");
    }

    /// Says one thing.
    fn step(&mut self, world: &mut World, other: &Self, fields: &mut Fields<'_>) {
        let own = self.account.expect("she is logged in");
        let other = other.account.expect("she is logged in");
        let choice = fields.byte();
        let whose = |fields: &mut Fields<'_>| match fields.byte() % 4 {
            0 => own,
            1 | 2 => other,
            _ => AccountId(u64::from_le_bytes(fields.array())),
        };
        let now_s = (world.now.wall_ms / 1000) as u32;
        let id = |fields: &mut Fields<'_>| match fields.byte() {
            255 => MessageId(u64::from_le_bytes(fields.array())),
            low => MessageId::new(now_s, low.into()),
        };
        match choice % 16 {
            0 | 1 => {
                let (to, id) = (whose(fields), id(fields));
                let body = vec![7; usize::from(fields.byte()) * 4];
                self.say(world, &ClientFrame::Send { to, id, body: &body });
            }
            2 => self.say(world, &ClientFrame::Ack { number: fields.byte().into() }),
            3 => self.say(world, &ClientFrame::Ack { number: u32::from_le_bytes(fields.array()) }),
            4 => self.say(world, &ClientFrame::Ping { token: u32::from_le_bytes(fields.array()) }),
            5 => {
                let name = String::from_utf8_lossy(fields.some()).into_owned();
                self.say(world, &ClientFrame::Lookup { name: &name });
            }
            6 => {
                let (author, id) = (whose(fields), id(fields));
                self.say(world, &ClientFrame::Read { author, id });
            }
            7 => {
                let state = [PresenceState::Away, PresenceState::Available][usize::from(fields.byte() % 2)];
                self.say(world, &ClientFrame::Presence { state });
            }
            8 => {
                let (to, on) = (whose(fields), fields.byte() % 2 == 0);
                self.say(world, &ClientFrame::Typing { to, on });
            }
            9 => {
                let account = whose(fields);
                self.say(world, &ClientFrame::Watch { account });
            }
            10 => self.say(world, &ClientFrame::Devices),
            // Her own key, the other's and others.
            11 => self.say(world, &ClientFrame::AddDevice { key: key(fields.byte()) }),
            12 => self.say(world, &ClientFrame::RevokeDevice { device: DeviceId(fields.byte().into()) }),
            13 => {
                let last = [ClientFrame::Start, ClientFrame::Goodbye][usize::from(fields.byte() % 2)];
                self.say(world, &last);
            }
            14 => match fields.byte() % 3 {
                // Any frames in a good record, any record, and part of one.
                0 | 1 => {
                    let mut record = Vec::new();
                    self.client.seal_as_it_is(fields.some(), &mut record);
                    world.hear(self.line, &record);
                }
                _ => world.hear(self.line, fields.some()),
            },
            _ => {
                let ms = u64::from(fields.byte()).min(STEPS_MS_MAX - fields.passed_ms);
                fields.passed_ms += ms;
                world.pass_ms(ms);
            }
        }
    }
}

fn key(number: u8) -> [u8; 32] {
    match number {
        2 | 3 => KeyPair::from_seed([number; 32]).public,
        _ => [number; 32],
    }
}

/// What is left of the input; behind its end come zeros.
struct Fields<'a> {
    rest: &'a [u8],
    passed_ms: u64,
}

impl<'a> Fields<'a> {
    fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        byte
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// As many as the next byte says, if there are.
    fn some(&mut self) -> &'a [u8] {
        let count = usize::from(self.byte()).min(self.rest.len());
        let (some, rest) = self.rest.split_at(count);
        self.rest = rest;
        some
    }
}

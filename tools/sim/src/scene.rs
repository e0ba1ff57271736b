//! What everybody in the world shares: time, network, model, plan, and the list of things that can happen.

use crate::network::{Arrival, Direction, LinkId, Network, Owner};
use crate::node::NodeEvent;
use crate::oracle::Oracle;
use crate::phone::Company;
use crate::plan::{Fault, Plan};
use crate::random::Random;
use crate::schedule::{Schedule, US};
use std::collections::{BTreeMap, BTreeSet};
use tern_protocol::phone::noise::KeyPair;

/// Something that happens.
#[derive(Debug)]
pub enum Event {
    /// Bytes arrive.
    Network(LinkId, Direction),
    /// A link reaches the node's listeners.
    Knock(LinkId),
    /// Something of the node; ignored when the node has stopped since (`boot` tells).
    Node {
        /// In which life of the node.
        boot: u32,
        /// What.
        event: NodeEvent,
    },
    /// The node starts.
    Boot,
    /// A phone looks at its clock.
    Phone(usize),
    /// A phone is away no longer.
    Return(usize),
    /// An attacker goes on.
    Attacker(usize),
    /// The plan.
    Fault(Fault),
    /// The end of a fault.
    Mend(Fault),
    /// A crash that waited for a tick.
    Crash(Fault),
    /// Faults end.
    Calm,
    /// Somebody looks at the whole.
    Look,
}

/// The shared part of the world.
pub struct Scene {
    /// Time, chance, trace and the first failure.
    pub schedule: Schedule<Event>,
    /// The network.
    pub network: Network,
    /// The model.
    pub oracle: Oracle,
    /// The plan.
    pub plan: Plan,
    /// The node's Noise key.
    pub server_keys: KeyPair,
    /// The one before it, while the node still answers to it.
    pub previous_server_keys: Option<KeyPair>,
    /// What its tickets are made from.
    pub ticket_secret: [u8; 32],
    /// First bytes of honest phones' connections, as an attacker on the path could record them.
    pub recorded: Vec<Vec<u8>>,
    /// Likewise what a phone that would make its account said first, the last time, by the account.
    pub registrations: BTreeMap<usize, Vec<u8>>,
    /// Links of phones that the node has not closed.
    pub open_at_node: BTreeSet<(usize, LinkId)>,
    /// Accounts that exist for sure.
    pub exists: BTreeSet<usize>,
    /// A crash that waits for the next `sent` tick.
    pub crash_on_tick: Option<Fault>,
    /// A crash that waits until a phone asks to change devices.
    pub crash_on_change: Option<Fault>,
    /// A crash that waits until a shard writes elsewhere what lives in thin segments.
    pub crash_on_rewriting: Option<Fault>,
    /// Crashes that wait for the next starts of the node: one each.
    pub crashes_on_boot: Vec<Fault>,
    /// What was said that nobody keeps.
    pub company: Company,
    /// In which life the node is: each start and each stop begins another one.
    pub life: u32,
    /// In which life it was last asked to stop politely.
    pub drained_in: Option<u32>,
    /// Faults are over.
    pub is_calm: bool,
}

impl Scene {
    /// The scene of a plan.
    #[must_use]
    pub fn new(plan: Plan, mut random: Random) -> Self {
        let network = Network::new(random.fork(), plan.pace);
        let server_keys = KeyPair::from_seed(random.seed());
        let ticket_secret = random.seed();
        let oracle = Oracle::of_run(&plan);
        Self {
            schedule: Schedule::new(random),
            network,
            oracle,
            plan,
            server_keys,
            previous_server_keys: None,
            ticket_secret,
            recorded: Vec::new(),
            registrations: BTreeMap::new(),
            open_at_node: BTreeSet::new(),
            exists: BTreeSet::new(),
            crash_on_tick: None,
            crash_on_change: None,
            crash_on_rewriting: None,
            crashes_on_boot: Vec::new(),
            company: Company::default(),
            life: 0,
            drained_in: None,
            is_calm: false,
        }
    }

    /// Virtual nanoseconds.
    #[must_use]
    pub const fn now_ns(&self) -> u64 {
        self.schedule.now_ns()
    }

    /// Chance.
    pub const fn random(&mut self) -> &mut Random {
        &mut self.schedule.random
    }

    /// The operator changes the node's key, or ends the one before: in turns, at each stop, where the plan says so.
    pub fn change_key(&mut self) {
        if !self.plan.changes_keys {
            return;
        }
        self.previous_server_keys = match self.previous_server_keys {
            // The next key follows from the last: it draws nothing, so that runs stay what they were.
            None => {
                let next = KeyPair::from_seed(self.server_keys.public);
                Some(std::mem::replace(&mut self.server_keys, next))
            }
            Some(_) => None,
        };
    }

    /// Whether the node answers to a key.
    #[must_use]
    pub fn knows_key(&self, key: [u8; 32]) -> bool {
        let previous = self.previous_server_keys.as_ref();
        key == self.server_keys.public || previous.is_some_and(|keys| keys.public == key)
    }

    /// Somebody was told that an account is no more.
    pub fn account_is_gone(&mut self, account: usize) {
        let verdict = self.oracle.is_gone(account, self.schedule.now_ns());
        self.judge(verdict);
    }

    /// Records what a rule of the model says.
    pub fn judge<T>(&mut self, verdict: Result<T, String>) -> Option<T> {
        verdict.map_err(|invariant| self.schedule.fail(invariant)).ok()
    }

    /// Opens a link to the node.
    pub fn connect(&mut self, owner: Owner) -> LinkId {
        let link = self.network.open(owner);
        let delay_ns = self.random().below(500 * US);
        self.schedule.after(delay_ns, Event::Knock(link));
        if let Some(header) = self.plan.places.header(owner, link) {
            self.write(link, Direction::Up, &header);
        }
        link
    }

    /// Writes to a link.
    pub fn write(&mut self, link: LinkId, direction: Direction, bytes: &[u8]) {
        let arrival = self.network.write(link, direction, bytes);
        self.expect(arrival);
    }

    /// Says the end on a link.
    pub fn finish(&mut self, link: LinkId, direction: Direction) {
        let arrival = self.network.finish(link, direction);
        self.expect(arrival);
    }

    /// Breaks a link.
    pub fn reset(&mut self, link: LinkId) {
        for arrival in self.network.reset(link) {
            self.expect(Some(arrival));
        }
    }

    /// Puts an arrival on the schedule.
    pub fn expect(&mut self, arrival: Option<Arrival>) {
        if let Some(arrival) = arrival {
            self.schedule.after(arrival.delay_ns, Event::Network(arrival.link, arrival.direction));
        }
    }

    /// Whether the node still holds another link of this phone, whose late bytes could replace the present one.
    #[must_use]
    pub fn has_other_link(&self, phone: usize, link: LinkId) -> bool {
        self.open_at_node.iter().any(|&(owner, other)| owner == phone && other != link)
    }
}

//! One run: the plan is played, faults end, everything comes to rest, and the books are closed.

use crate::attacker::Attacker;
use crate::disk::Crash;
use crate::network::{Direction, Owner, Pace};
use crate::node::Node;
use crate::phone::{Phone, Wish};
use crate::plan::{Fault, Plan};
use crate::random::Random;
use crate::removals::Removals;
use crate::scene::{Event, Scene};
use crate::schedule::{MS, SECOND, US};
use tern_core::control::{ControlReply, ControlRequest, Created, NewAccount};
use tern_core::io::FatalError;
use tern_protocol::ids::DeviceId;

/// Time between looks at the whole, nanoseconds.
const LOOK_NS: u64 = 50 * MS;
/// After faults end everything must be at rest within this time, nanoseconds: a refused stream may wait a minute.
pub const REST_NS: u64 = 150 * SECOND;
/// After everybody left the node's books must be even within this time, nanoseconds.
const EVEN_NS: u64 = 20 * SECOND;
/// Where phones watched each other: nobody ends a watch before its ten minutes are over, and an account's are looked at
/// once in ten minutes.
const UNWATCHED_NS: u64 = 1_240 * SECOND;
/// Seconds of a day.
const DAY_S: i64 = 86_400;
/// A polite stop must end within this time, nanoseconds.
const DRAIN_NS: u64 = 30 * SECOND;

/// How a run went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Hash over everything that went in and out of the shards.
    pub trace: u64,
    /// The invariant that broke, if one did.
    pub failure: Option<String>,
    /// Messages that were composed.
    pub message_count: usize,
    /// Links that were opened.
    pub link_count: usize,
    /// Times that the node started.
    pub boot_count: u32,
    /// Segments of the log given back because what lived in them was written elsewhere.
    pub segments_rewritten: u64,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
}

/// Deliberate bugs to switch on; without the feature there are none.
#[cfg(feature = "bugs")]
pub type Bugs = tern_core::bugs::Bugs;
/// Deliberate bugs to switch on; without the feature there are none.
#[cfg(not(feature = "bugs"))]
#[derive(Clone, Copy, Default, Debug)]
pub struct Bugs {}

/// Plays one seed; `tells` prints everything that happens.
#[must_use]
pub fn run(seed: u64, bugs: Bugs, tells: bool) -> Outcome {
    let mut world = World::new(seed, bugs);
    if tells {
        world.scene.schedule.tell_everything();
        println!("{:#?}", world.scene.plan);
    }
    world.play();
    Outcome {
        seed,
        trace: world.scene.schedule.trace.hash(),
        failure: world.scene.schedule.failure().cloned(),
        message_count: world.scene.oracle.messages.len(),
        link_count: world.scene.network.link_count(),
        boot_count: world.boot_count,
        segments_rewritten: world.node.segments_rewritten,
        virtual_ms: world.scene.now_ns() / MS,
    }
}

/// Where a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Faults happen.
    Storm,
    /// Faults are over since then.
    Calm(u64),
    /// Everybody has left, since then.
    Closing(u64),
    /// The node was stopped and started once more, to see what is left.
    Reopening(u64),
    /// Done.
    Over,
}

struct World {
    scene: Scene,
    node: Node,
    phones: Vec<Phone>,
    attackers: Vec<Attacker>,
    removals: Removals,
    phase: Phase,
    boot_count: u32,
    /// In which life of the node each account was asked for.
    asked_boot: Vec<u32>,
    /// Since when the node drains.
    draining_ns: Option<u64>,
    /// A failed write was planned for a drive.
    write_failure_planned: bool,
    disk_full_planned: bool,
}

impl World {
    #[cfg_attr(not(feature = "bugs"), expect(unused_variables, reason = "there are no bugs to switch on"))]
    fn new(seed: u64, bugs: Bugs) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::new(seed, &mut random);
        let mut scene = Scene::new(plan, random);
        #[cfg_attr(not(feature = "bugs"), expect(unused_mut, reason = "only bugs change it here"))]
        let mut node = Node::new(&mut scene);
        #[cfg(feature = "bugs")]
        {
            node.bugs = bugs;
        }
        let mut phones = Vec::new();
        for (index, account) in scene.plan.accounts.clone().into_iter().enumerate() {
            scene.oracle.add_account(account.name);
            for number in 1..=account.device_count {
                phones.push(Phone::new(phones.len(), index, Some(DeviceId(number)), &mut scene));
            }
        }
        // Those that may be added come last: a plan names the others by their numbers.
        for (index, account) in scene.plan.accounts.clone().into_iter().enumerate() {
            for _ in 0..account.spare_count {
                phones.push(Phone::new(phones.len(), index, None, &mut scene));
            }
        }
        let mut world = Self {
            asked_boot: vec![0; scene.plan.accounts.len()],
            scene,
            node,
            phones,
            attackers: Vec::new(),
            removals: Removals::default(),
            phase: Phase::Storm,
            boot_count: 0,
            draining_ns: None,
            write_failure_planned: false,
            disk_full_planned: false,
        };
        world.lay_out();
        world
    }

    /// Puts the plan on the schedule.
    fn lay_out(&mut self) {
        let schedule = &mut self.scene.schedule;
        schedule.at(0, Event::Boot);
        schedule.at(LOOK_NS, Event::Look);
        for &(time_ns, fault) in &self.scene.plan.faults {
            schedule.at(time_ns, Event::Fault(fault));
        }
        schedule.at(self.scene.plan.calm_ns, Event::Calm);
        for phone in &mut self.phones {
            phone.act(&mut self.scene);
        }
    }

    fn play(&mut self) {
        while let Some(event) = self.scene.schedule.advance() {
            self.handle(event);
            if let Some(error) = self.node.fatal.take() {
                self.node_stopped(error);
            }
            if self.phase == Phase::Over || self.scene.schedule.failure().is_some() {
                self.scene.schedule.tell(|| self.node.describe());
                return;
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let scene = &mut self.scene;
        scene.network.now_ns = scene.schedule.now_ns();
        scene.oracle.now_ms = scene.schedule.wall_ms();
        match event {
            Event::Network(link, direction) => {
                let arrival = scene.network.arrive(link, direction, scene.schedule.now_ns());
                scene.expect(arrival);
                match (direction, scene.network.owner(link)) {
                    (Direction::Up, _) => self.node.hear(scene, link),
                    (Direction::Down, Owner::Attacker(attacker)) => self.attackers[attacker].listen(scene),
                    (Direction::Down, Owner::Phone(phone)) => {
                        if self.phones[phone].link() == Some(link) {
                            self.phones[phone].listen(scene);
                        }
                    }
                }
            }
            Event::Knock(link) => self.node.knock(scene, link),
            Event::Node { boot, event } => {
                if boot == self.node.boot {
                    self.node.handle(scene, event);
                }
            }
            Event::Boot => self.boot(),
            Event::Phone(phone) => self.phones[phone].wake(scene),
            // Once faults are over everybody is online anyway, or has left for good.
            Event::Return(_) if scene.is_calm => {}
            Event::Return(phone) => self.phones[phone].set_online(scene, true),
            Event::Attacker(attacker) => self.attackers[attacker].act(scene),
            Event::Fault(fault) => self.inflict(fault),
            Event::Mend(fault) => self.mend(fault),
            // Nobody is left to fetch what a crash brings back.
            Event::Crash(_) if !matches!(self.phase, Phase::Storm | Phase::Calm(_)) => {}
            Event::Crash(fault) => self.crash(fault),
            Event::Calm => self.calm(),
            Event::Look => self.look(),
        }
        self.hear_control();
    }

    fn boot(&mut self) {
        if !self.node.is_up() {
            self.boot_count += 1;
            self.draining_ns = None;
            self.node.boot(&mut self.scene);
            if let Some(Fault::CrashOnBoot(crash, within_ns, down_ns)) = self.scene.crashes_on_boot.pop() {
                let delay_ns = self.scene.random().below(within_ns);
                self.scene.schedule.after(delay_ns, Event::Crash(Fault::Crash(crash, down_ns)));
            }
        }
    }

    fn stop(&mut self, crash: Crash, down_ns: u64) {
        if self.node.is_up() {
            self.scene.schedule.tell(|| format!("the node stops: {crash:?}"));
            self.node.crash(&mut self.scene, crash);
            self.scene.change_key();
            // What knocks at a node that is down is turned away: no first message outlives the key that it was for.
            self.scene.schedule.after(down_ns.max(MS), Event::Boot);
        } else if crash == Crash::Power {
            self.node.lose_power();
        }
    }

    fn crash(&mut self, fault: Fault) {
        if let Fault::Crash(crash, down_ns) | Fault::CrashOnTick(crash, down_ns) = fault {
            self.stop(crash, down_ns);
        }
    }

    /// The node stopped itself: only for a reason that the plan gave it.
    fn node_stopped(&mut self, error: FatalError) {
        let expected = match error {
            FatalError::LogWrite(_) => std::mem::take(&mut self.write_failure_planned),
            FatalError::LogFullAtBoot => self.disk_full_planned,
        };
        self.scene.schedule.check(expected, || format!("the node stopped itself: {error:?}"));
        let down_ns = self.scene.random().below(300 * MS);
        self.stop(Crash::Kill, down_ns);
    }

    fn inflict(&mut self, fault: Fault) {
        let scene = &mut self.scene;
        scene.schedule.tell(|| format!("{fault:?}"));
        let now_ns = scene.now_ns();
        match fault {
            Fault::Crash(..) => self.crash(fault),
            Fault::CrashOnTick(..) => scene.crash_on_tick = Some(fault),
            Fault::Drain if self.node.is_serving() => {
                self.draining_ns = Some(now_ns);
                scene.drained_in = Some(scene.life);
                self.node.drain(scene);
            }
            Fault::Drain => {}
            Fault::DiskSlow(shard, long_ns) => {
                self.node.mood(shard).latency_ns_max = 150 * MS;
                scene.schedule.after(long_ns, Event::Mend(fault));
            }
            Fault::DiskFull(shard, long_ns) => {
                self.disk_full_planned = true;
                self.node.mood(shard).full = true;
                scene.schedule.after(long_ns, Event::Mend(fault));
            }
            Fault::DiskWriteFails(shard) => {
                self.write_failure_planned = true;
                self.node.mood(shard).write_fails = true;
            }
            Fault::ShardSlow(shard, long_ns) => self.node.slow(shard, now_ns + long_ns),
            Fault::ClockWrong(days, long_ns) => {
                self.node.set_clock_wrong(days * DAY_S);
                scene.schedule.after(long_ns, Event::Mend(fault));
            }
            Fault::SetClock(wrong_s) => {
                self.node.set_clock_wrong(wrong_s);
                let is_followed = self.node.follows_clock(scene);
                scene.oracle.clocks.is_set(now_ns, is_followed);
            }
            Fault::MovesFail(long_ns) => self.node.fail_moves(now_ns + long_ns),
            Fault::Cut(phone) => {
                if let Some(link) = self.phones[phone].link() {
                    scene.reset(link);
                }
            }
            Fault::Vanish(phone) => {
                if let Some(link) = self.phones[phone].link() {
                    scene.network.vanish(link);
                }
            }
            Fault::Stall(phone, direction, long_ns) => {
                if let Some(link) = self.phones[phone].link() {
                    scene.network.stall(link, direction, now_ns + long_ns);
                }
            }
            Fault::Leave(phone, away_ns) => {
                self.phones[phone].set_online(scene, false);
                scene.schedule.after(away_ns, Event::Return(phone));
            }
            Fault::Compose(from, to, count) => {
                if let Some(phone) = scene.oracle.devices.writer(from) {
                    self.phones[phone].compose(scene, to, count);
                }
            }
            Fault::AddDevice(..) | Fault::RevokeDevice(..) => self.change_devices(fault),
            Fault::RemoveAccount(..) => {
                self.removals.want(scene, &mut self.phones, fault);
                self.removals.ask(scene, &mut self.node, &self.phones);
            }
            Fault::CrashOnChange(..) => scene.crash_on_change = Some(fault),
            Fault::CrashOnBoot(..) => scene.crashes_on_boot.push(fault),
            Fault::CrashOnRewriting(crash, down_ns) => {
                scene.crash_on_rewriting = Some(Fault::Crash(crash, down_ns));
            }
            Fault::Attack | Fault::Replay(_) => {
                let account = if let Fault::Replay(account) = fault { Some(account) } else { None };
                let attacker = Attacker::new(self.attackers.len(), account, scene);
                self.attackers.push(attacker);
            }
        }
    }

    /// A phone gets a wish, if there is one that may have it.
    fn change_devices(&mut self, fault: Fault) {
        let scene = &mut self.scene;
        match fault {
            Fault::AddDevice(account, pick) => {
                let devices = &scene.oracle.devices;
                let askers = devices.members(account);
                let new = devices.of(account).find(|(_, device)| !device.add_asked).map(|(phone, _)| phone);
                if let (Some(new), false) = (new, askers.is_empty()) {
                    self.phones[askers[pick % askers.len()]].wish(scene, Wish::Add(new), false);
                }
            }
            Fault::RevokeDevice(account, asker, revoked, forgets) => {
                let members = scene.oracle.devices.members(account);
                if members.len() > 1 {
                    let (asker, revoked) = (members[asker % members.len()], members[revoked % members.len()]);
                    if !self.phones.iter().any(|phone| phone.wants(Wish::Add(revoked))) {
                        self.phones[asker].wish(scene, Wish::Revoke(revoked), forgets);
                    }
                }
            }
            _ => {}
        }
    }

    fn mend(&mut self, fault: Fault) {
        match fault {
            Fault::DiskSlow(shard, _) => self.node.mood(shard).latency_ns_max = self.scene.plan.disk_ns_max,
            Fault::DiskFull(shard, _) => self.node.mood(shard).full = false,
            Fault::ClockWrong(..) => self.node.set_clock_wrong(0),
            _ => {}
        }
    }

    /// Faults end: everybody comes online and must come to rest.
    fn calm(&mut self) {
        let scene = &mut self.scene;
        scene.is_calm = true;
        scene.oracle.calm_ms = Some(scene.schedule.wall_ms());
        scene.crash_on_tick = None;
        scene.crash_on_change = None;
        scene.crash_on_rewriting = None;
        scene.crashes_on_boot.clear();
        scene.network.pace = Pace { delay_ns_max: MS, split_percent: 30 };
        for shard in 0..scene.plan.shard_count {
            let mood = self.node.mood(shard);
            mood.full = false;
            mood.write_fails = false;
            mood.latency_ns_max = MS;
            self.node.slow(shard, 0);
        }
        self.node.fail_moves(0);
        if !scene.plan.sets_clock {
            self.node.set_clock_wrong(0);
        }
        scene.plan.move_ns_max = 500 * US;
        scene.plan.turn_ns_max = 200 * US;
        self.phase = Phase::Calm(scene.now_ns());
        for phone in &mut self.phones {
            phone.set_online(scene, true);
        }
    }

    /// Looks at the whole from time to time: makes accounts, ends a polite stop, and ends the run.
    fn look(&mut self) {
        self.scene.schedule.after(LOOK_NS, Event::Look);
        self.make_accounts();
        self.removals.ask(&mut self.scene, &mut self.node, &self.phones);
        self.end_drain();
        let now_ns = self.scene.now_ns();
        match self.phase {
            Phase::Calm(since_ns) => {
                let unrest = self.unrest();
                if let Some(unrest) = unrest {
                    let late = now_ns > since_ns + REST_NS;
                    self.scene.schedule.check(!late, || format!("no rest after faults ended: {unrest}"));
                } else if self.draining_ns.is_none() && self.node.is_serving() {
                    for phone in &mut self.phones {
                        phone.retire(&mut self.scene);
                    }
                    self.phase = Phase::Closing(now_ns);
                }
            }
            Phase::Closing(since_ns) => match self.node.uneven() {
                Some(uneven) => {
                    let even_ns = if self.scene.plan.is_social { UNWATCHED_NS } else { EVEN_NS };
                    let late = now_ns > since_ns + even_ns;
                    self.scene.schedule.check(!late, || format!("after everybody left: {uneven}"));
                }
                // Floors and confirmations get their time to become durable.
                None if now_ns > since_ns + 4 * SECOND => {
                    self.node.check_counters(&mut self.scene);
                    let (there, expected) =
                        (self.node.counters().accounts_now as usize, self.scene.oracle.present_count());
                    self.scene.schedule.check(there == expected, || {
                        format!("{expected} accounts are there for sure, and the node has {there}")
                    });
                    self.stop(Crash::Power, MS);
                    self.phase = Phase::Reopening(now_ns);
                }
                None => {}
            },
            Phase::Reopening(since_ns) if self.node.is_serving() => {
                let left = self.node.counters().mail_count_now;
                self.scene.schedule.check(left == 0, || {
                    format!("everything was acknowledged, and {left} messages come back after a stop")
                });
                self.phase = if now_ns > since_ns + SECOND { Phase::Over } else { self.phase };
            }
            Phase::Reopening(since_ns) => {
                let late = now_ns > since_ns + REST_NS;
                self.scene.schedule.check(!late, || "the node does not serve again".into());
            }
            Phase::Storm | Phase::Over => {}
        }
    }

    /// What is not done yet, if anything.
    fn unrest(&self) -> Option<String> {
        let serials = 0..self.scene.oracle.messages.len();
        let restless = self.phones.iter().find(|phone| !phone.is_quiet(&self.scene)).map(Phone::describe);
        match serials.filter_map(|serial| self.scene.oracle.unfinished(serial)).next() {
            Some(unfinished) => Some(format!("{unfinished}; {}", restless.unwrap_or_default())),
            None if !self.removals.is_empty() => Some("an account is not removed".into()),
            None => restless.or_else(|| {
                let held = self.node.counters().mail_count_now;
                (held > 0).then(|| format!("the node still holds {held} messages"))
            }),
        }
    }

    fn end_drain(&mut self) {
        let Some(since_ns) = self.draining_ns else { return };
        if self.node.is_drained() {
            let used = self.node.used_slots();
            self.scene.schedule.check(used == 0, || format!("drained with {used} sockets open"));
            self.draining_ns = None;
            let down_ns = self.scene.random().below(200 * MS);
            self.stop(Crash::Kill, down_ns);
        } else {
            let late = self.scene.now_ns() > since_ns + DRAIN_NS;
            self.scene.schedule.check(!late, || "a polite stop does not end".into());
        }
    }

    /// Asks for the accounts that the control plane makes.
    fn make_accounts(&mut self) {
        if !self.node.is_serving() {
            return;
        }
        for account in 0..self.scene.plan.accounts.len() {
            let plan = &self.scene.plan.accounts[account];
            let is_there = plan.registers || self.scene.exists.contains(&account);
            if is_there || self.asked_boot[account] == self.node.boot {
                continue;
            }
            self.asked_boot[account] = self.node.boot;
            let name = plan.name.clone();
            let devices = self.scene.oracle.devices.of(account).map(|(_, device)| device);
            let device_keys = devices.filter(|d| d.since.is_some()).map(|device| device.key).collect();
            let home = self.node.home_of_name(&name);
            let request = ControlRequest::CreateAccounts(vec![NewAccount { name, device_keys }]);
            self.node.ask(&mut self.scene, home, account as u64, request);
        }
    }

    fn hear_control(&mut self) {
        for (token, reply) in std::mem::take(&mut self.node.replies) {
            if self.removals.hear(&mut self.scene, token, &reply) {
                continue;
            }
            let account = token as usize;
            match reply {
                ControlReply::Created(made) => match made.as_slice() {
                    [Created::New(id) | Created::Existing(id)] => {
                        self.scene.exists.insert(account);
                        let verdict = self.scene.oracle.learn_id(account, *id);
                        self.scene.judge(verdict);
                    }
                    // Asked again at the next look.
                    [Created::Full | Created::LogFull] => self.asked_boot[account] = 0,
                    _ => self.scene.schedule.fail(format!("account {account} is not made: {made:?}")),
                },
                ControlReply::Refused => self.asked_boot[account] = 0,
                _ => self.scene.schedule.fail(format!("a wrong answer from the control plane: {reply:?}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_crash_that_was_planned_long_before_comes_once_everybody_has_left() {
        let mut world = World::new(0, Bugs::default());
        let mut boots = None;
        while world.phase != Phase::Over && world.scene.schedule.failure().is_none() {
            let event = world.scene.schedule.advance().expect("there is always a next look");
            world.handle(event);
            if matches!(world.phase, Phase::Closing(_)) && boots.is_none() {
                boots = Some(world.boot_count);
                world.scene.schedule.after(MS, Event::Crash(Fault::Crash(Crash::Power, MS)));
            }
        }
        assert_eq!(world.scene.schedule.failure(), None);
        assert_eq!(Some(world.boot_count), boots.map(|count| count + 1), "once more, to see what is left");
    }
}

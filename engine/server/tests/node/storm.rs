//! Everybody is cut off at once and comes back at once, by ticket: all get in within their retries, and who stayed
//! notices nothing.

use crate::hostile::Bystanders;
use crate::phone::{Heard, Phone, Way};
use crate::process::{Node, Setup};
use std::time::{Duration, Instant};
use tern_protocol::phone::ticket::Ticket;

const GUEST_COUNT: usize = 240;
const BUSY_MS: u32 = 40;
/// A round lets in at least as many as may wait on a shard, so that this is many times what it takes.
const TRIES_MAX: u32 = 100;

/// A phone that comes back.
struct Guest {
    ticket: Ticket,
    phone: Option<Phone>,
    due: Instant,
    heard: Vec<Heard>,
    told_ms: Vec<u32>,
}

impl Guest {
    fn is_in(&self) -> bool {
        self.heard.contains(&Heard::Drained)
    }

    /// Hears what there is; comes again when it is time.
    fn turn(&mut self, node: &Node) {
        let Some(phone) = &mut self.phone else {
            if Instant::now() >= self.due {
                self.phone = Some(Phone::resume(node.phone, self.ticket));
            }
            return;
        };
        self.heard.extend(phone.poll());
        if let Some(busy_ms) = phone.busy_ms {
            self.told_ms.push(busy_ms);
            assert!(self.told_ms.len() < TRIES_MAX as usize, "never let in: {:?}", self.told_ms);
            // No longer than it was told: the server's times have their jitter.
            self.due = Instant::now() + Duration::from_millis(busy_ms.into());
            self.phone = None;
            self.heard.clear();
        } else {
            assert!(!self.heard.contains(&Heard::End), "closed without a word: {:?}", self.heard);
        }
    }
}

fn guests(node: &Node) -> Vec<Guest> {
    let arrive = |number: usize| {
        let mut phone = Phone::log_in(node.phone, &format!("guest{number}"), 7, &Way::default());
        assert_eq!(phone.next(), Heard::Drained);
        phone
    };
    // All are there before the first goes.
    let phones: Vec<Phone> = (0..GUEST_COUNT).map(arrive).collect();
    let tickets = phones.iter().map(|phone| phone.ticket.expect("a ticket for the next time"));
    let guest =
        |ticket| Guest { ticket, phone: None, due: Instant::now(), heard: Vec::new(), told_ms: Vec::new() };
    tickets.map(guest).collect()
}

#[test]
fn all_come_back_by_ticket_at_once_and_who_stayed_keeps_its_ticks() {
    // However slow the machine is, nobody's login takes too long.
    let limits = format!(
        "[limits]\nhandshakes_per_turn = 1\ndeferred_count = 16\nbusy_ms = {BUSY_MS}\nlogin_ms = 120000\n"
    );
    let node = Node::start(Setup { config: limits, ..Setup::shards(2) });
    let mut bystanders = Bystanders::arrive(node.phone, &Way::default());
    bystanders.talk();
    let mut guests = guests(&node);
    let deadline = Instant::now() + Duration::from_secs(60);
    while node.metric("tern_connections_now") > 2 {
        assert!(Instant::now() < deadline, "the cut connections are not gone");
    }
    let before =
        ["refused_handshakes", "deferred_handshakes", "logins_by_ticket"].map(|name| node.metric(name));
    assert_eq!(before, [0, 0, 0], "one after the other nobody waits");
    // All connect and say their first words before the node takes up any.
    node.signal("STOP");
    for guest in &mut guests {
        guest.phone = Some(Phone::dial(node.phone, guest.ticket));
    }
    guests.iter_mut().filter_map(|guest| guest.phone.as_mut()).for_each(Phone::flush);
    node.signal("CONT");
    let mut talk_count = 0;
    while !guests.iter().all(Guest::is_in) {
        assert!(Instant::now() < deadline, "{} are in", guests.iter().filter(|guest| guest.is_in()).count());
        guests.iter_mut().filter(|guest| !guest.is_in()).for_each(|guest| guest.turn(&node));
        bystanders.talk();
        talk_count += 1;
    }
    assert!(talk_count > 1, "they talked while the others came");
    bystanders.were_undisturbed();
    // Each got in once, and each refusal was told to the one whom it met.
    let mut told_ms: Vec<u32> = guests.iter().flat_map(|guest| guest.told_ms.iter().copied()).collect();
    node.wait_for("tern_logins_by_ticket_total", GUEST_COUNT as u64);
    node.wait_for("tern_refused_handshakes_total", told_ms.len() as u64);
    assert_eq!(node.metric("tern_logins_by_ticket_total"), GUEST_COUNT as u64);
    assert_eq!(node.metric("tern_refused_handshakes_total"), told_ms.len() as u64);
    assert!(node.metric("tern_deferred_handshakes_total") >= 16, "some waited for their turn");
    assert_eq!((node.metric("tern_tickets_refused_total"), node.metric("tern_timeouts_total")), (0, 0));
    node.wait_for("tern_sessions_now", GUEST_COUNT as u64 + 2);
    // More came at once than may wait, and they were told different times.
    told_ms.sort_unstable();
    assert!(told_ms.len() >= 100, "{} were told to come back", told_ms.len());
    assert!(told_ms[0] >= BUSY_MS && told_ms[told_ms.len() - 1] <= 2 * BUSY_MS, "{told_ms:?}");
    told_ms.dedup();
    assert!(told_ms.len() > BUSY_MS as usize / 2, "spread over the time: {told_ms:?}");
}

/// A storm that lasts longer than phones are patient must not be spent on those who have gone.
#[test]
fn phones_that_leave_while_they_wait_cost_no_handshake() {
    let limits = "[limits]\nhandshakes_per_turn = 1\nlogin_ms = 120000\n".into();
    let node = Node::start(Setup { config: limits, ..Setup::shards(1) });
    let guests = guests(&node);
    node.wait_for_level("tern_connections_now", 0);
    let [accepted, deferred] = ["tern_accepted_total", "tern_deferred_handshakes_total"];
    let (accepted_before, deferred_before) = (node.metric(accepted), node.metric(deferred));
    assert_eq!(node.metric("tern_logins_unproven_total"), 0);
    // Each says its first words and goes; the node finds all of them at once.
    node.signal("STOP");
    for guest in &guests {
        Phone::dial(node.phone, guest.ticket).flush();
    }
    let mut patient = Phone::dial(node.phone, guests[0].ticket);
    patient.flush();
    node.signal("CONT");
    assert_eq!((patient.next(), patient.next()), (Heard::Welcome, Heard::Drained));
    node.wait_for(accepted, accepted_before + GUEST_COUNT as u64 + 1);
    node.wait_for_level("tern_connections_now", 1);
    // Who had its turn at once could not be known to have gone.
    let waited_count = node.metric(deferred) - deferred_before;
    assert!(waited_count > GUEST_COUNT as u64 / 2, "{waited_count} waited for a turn");
    let in_vain_count = node.metric("tern_logins_unproven_total");
    assert!(in_vain_count <= GUEST_COUNT as u64 + 1 - waited_count, "{in_vain_count} were welcomed in vain");
    // None of their tickets is used up.
    let mut back = Phone::resume(node.phone, guests[1].ticket);
    assert_eq!((back.next(), back.next()), (Heard::Welcome, Heard::Drained));
}

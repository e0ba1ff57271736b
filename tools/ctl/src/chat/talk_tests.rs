//! Conversations without a server: what is shown, and what is said.

use super::talk::{Now, Say, Talk};
use tern_protocol::ids::{AccountId, DeviceId, MessageId};
use tern_protocol::phone::client::Event;
use tern_protocol::phone::frame::{ClientFrame, PresenceState, ServerFrame};

const BOB: AccountId = AccountId(9);

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, unix_ms: 1_700_000_000_000 + mono_ms }
}

/// Ann, logged in; the server's clock is ten seconds ahead.
fn ann() -> Talk {
    let mut talk = Talk::new("ann", 5);
    talk.hear(
        Event::Welcome {
            account: AccountId(7),
            device: DeviceId(3),
            time_ms: 1_700_000_010_000,
            window: 8,
            server_key: None,
            keep_alive_s: 240,
        },
        at(0),
    );
    talk.hear_frame(ServerFrame::Drained, at(0));
    talk.lines.clear();
    talk
}

fn says(talk: &mut Talk, mono_ms: u64) -> Vec<Say> {
    talk.say_what_is_due(at(mono_ms));
    std::mem::take(&mut talk.says)
}

/// Ann talks to bob.
fn ann_and_bob() -> Talk {
    let mut talk = ann();
    talk.typed("/to bob\n", at(0));
    says(&mut talk, 0);
    talk.hear_frame(ServerFrame::Found { account: Some(BOB), name: "bob" }, at(0));
    assert_eq!(says(&mut talk, 0), [Say::Frame(ClientFrame::Watch { account: BOB })]);
    talk.lines.clear();
    talk
}

fn sent_ids(says: &[Say]) -> Vec<MessageId> {
    says.iter().filter_map(|say| if let Say::Send { id, .. } = say { Some(*id) } else { None }).collect()
}

fn deliver(talk: &mut Talk, number: u32, low: u32, body: &[u8]) {
    let id = MessageId::new(1_700_000_000, low);
    talk.hear_frame(
        ServerFrame::Deliver { number, from: BOB, id, time_s: 1_700_000_000, from_name: "bob", body },
        at(0),
    );
}

#[test]
fn what_is_written_before_the_name_is_known_goes_out_in_order() {
    let mut talk = ann();
    talk.typed("to nobody", at(0));
    talk.typed("/to bob", at(0));
    talk.typed("one", at(0));
    talk.typed("two\r\n", at(0));
    assert_eq!(talk.lines, ["not sent: say to whom with /to NAME"]);
    assert_eq!(says(&mut talk, 0), [Say::Lookup("bob".into())]);
    assert_eq!(says(&mut talk, 9_999), []);
    assert_eq!(says(&mut talk, 10_000), [Say::Lookup("bob".into())], "an answer may be lost");
    assert!(!talk.is_settled() && talk.unticked_count() == 2);
    talk.hear_frame(ServerFrame::Found { account: Some(AccountId(1)), name: "bert" }, at(0));
    assert_eq!(talk.unticked_count(), 2, "the answer to an older question");
    talk.hear_frame(ServerFrame::Found { account: Some(BOB), name: "bob" }, at(0));
    let said = says(&mut talk, 10_001);
    let texts: Vec<_> = said
        .iter()
        .filter_map(
            |say| if let Say::Send { to, text, .. } = say { Some((*to, text.as_str())) } else { None },
        )
        .collect();
    assert_eq!(texts, [(BOB, "one"), (BOB, "two")]);
    let ids = sent_ids(&said);
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id.unix_s() == 1_700_000_010), "the server's clock");
    assert!(ids.iter().all(|id| id.0 as u32 >> 16 == 3), "unique over the account's devices");
}

#[test]
fn a_name_that_nobody_has_loses_no_line_silently() {
    let mut talk = ann();
    talk.typed("/to bob", at(0));
    talk.typed("hello", at(0));
    talk.hear_frame(ServerFrame::Found { account: None, name: "bob" }, at(0));
    assert_eq!(talk.lines, ["there is no bob", "not sent: hello"]);
    assert!(talk.is_settled());
}

#[test]
fn a_repeated_message_is_acknowledged_and_not_shown() {
    let mut talk = ann();
    deliver(&mut talk, 1, 1, b"hi \x1b[2J");
    assert_eq!(talk.lines, ["22:13:20 bob: hi \u{fffd}[2J"], "text does not command the terminal");
    assert_eq!(talk.ack, Some(1));
    let read = Say::Frame(ClientFrame::Read { author: BOB, id: MessageId::new(1_700_000_000, 1) });
    assert_eq!(says(&mut talk, 0), std::slice::from_ref(&read));
    assert_eq!(says(&mut talk, 59_999), []);
    assert_eq!(says(&mut talk, 60_000), std::slice::from_ref(&read));
    talk.disconnected();
    assert_eq!(talk.ack, None, "numbers are of one connection");
    deliver(&mut talk, 1, 1, b"hi");
    assert_eq!((talk.lines.len(), talk.ack), (1, Some(1)));
    assert_eq!(says(&mut talk, 60_001), [read], "said again on the next connection");
    talk.hear_frame(ServerFrame::ReadTaken { author: BOB, id: MessageId::new(1_700_000_000, 1) }, at(0));
    assert_eq!(says(&mut talk, 200_000), []);
}

#[test]
fn ticks_rise_and_are_shown_once() {
    let mut talk = ann_and_bob();
    talk.typed("hello", at(0));
    assert_eq!(talk.lines.pop().as_deref(), Some("#1 22:13:30 > bob: hello"));
    let id = sent_ids(&says(&mut talk, 0))[0];
    let delivered = ServerFrame::Delivered { number: 1, by: BOB, id, time_s: 0 };
    talk.hear_frame(delivered, at(0));
    assert!(!talk.is_settled(), "only `sent` ends a sender's retries");
    talk.hear_frame(ServerFrame::Sent { id }, at(0));
    talk.hear_frame(delivered, at(0));
    talk.hear_frame(ServerFrame::Read { number: 2, by: BOB, id, time_s: 0 }, at(0));
    talk.hear_frame(delivered, at(0));
    assert_eq!(talk.lines, ["#1 ✓✓ delivered to bob", "#1 ✓✓ read by bob"]);
    assert!(talk.is_settled());
    let old = MessageId::new(60, 0);
    talk.hear_frame(ServerFrame::Read { number: 3, by: AccountId(255), id: old, time_s: 0 }, at(0));
    assert_eq!(talk.lines[2], "your message of 00:01:00 ✓✓ read by account 255");
    assert_eq!(talk.ack, Some(3));
}

#[test]
fn a_busy_server_and_a_lost_connection_get_the_same_ids_again() {
    let mut talk = ann_and_bob();
    for text in ["one", "two", "three"] {
        talk.typed(text, at(0));
    }
    let ids = sent_ids(&says(&mut talk, 0));
    talk.hear_frame(ServerFrame::Sent { id: ids[0] }, at(0));
    talk.hear_frame(ServerFrame::Busy { id: ids[1], retry_ms: 1000 }, at(0));
    assert_eq!(says(&mut talk, 999), []);
    assert_eq!(sent_ids(&says(&mut talk, 1_501)), ids[1..], "at most half as late again");
    talk.disconnected();
    assert_eq!(sent_ids(&says(&mut talk, 1_502)), ids[1..]);
    talk.hear_frame(ServerFrame::Unknown { id: ids[1] }, at(0));
    talk.hear_frame(ServerFrame::Expired { id: ids[2] }, at(0));
    assert_eq!(talk.unticked_count(), 0);
    assert!(talk.lines.iter().any(|line| line.starts_with("\"two\" did not go")), "{:?}", talk.lines);
}

#[test]
fn a_refused_watch_is_asked_for_again_when_the_server_says() {
    let mut talk = ann_and_bob();
    talk.hear_frame(ServerFrame::WatchRefused { account: BOB, retry_ms: 60_000 }, at(10));
    assert_eq!(says(&mut talk, 60_009), []);
    assert_eq!(says(&mut talk, 60_010), [Say::Frame(ClientFrame::Watch { account: BOB })]);
    assert_eq!(says(&mut talk, 599_000), []);
    assert_eq!(says(&mut talk, 600_010), [Say::Frame(ClientFrame::Watch { account: BOB })]);
}

#[test]
fn copies_and_presence_are_shown_once() {
    let mut talk = ann_and_bob();
    let id = MessageId::new(1_700_000_000, 1 << 16);
    for number in 1..3 {
        talk.hear_frame(ServerFrame::Copy { number, to: BOB, id, time_s: 1_700_000_000, body: b"hi" }, at(0));
    }
    for (account, state) in [
        (BOB, PresenceState::Available),
        (BOB, PresenceState::Available),
        (AccountId(1), PresenceState::Away),
        (BOB, PresenceState::Offline),
    ] {
        talk.hear_frame(ServerFrame::Presence { account, state, seen_s: 0 }, at(0));
    }
    for (on, mono_ms) in [(true, 0), (true, 9_999), (false, 9_999), (true, 10_000)] {
        talk.hear_frame(ServerFrame::Typing { from: BOB, on }, at(mono_ms));
    }
    assert_eq!(
        talk.lines,
        [
            "#1 22:13:20 > bob, from another device: hi",
            "bob is here",
            "bob is not connected",
            "bob is typing",
            "bob is typing",
        ]
    );
    assert_eq!(talk.ack, Some(2));
}

#[test]
fn commands_say_what_they_take() {
    let mut talk = ann();
    for line in ["/add 00", "/revoke x", "/to Bob", "/typing", "/quid"] {
        talk.lines.clear();
        talk.typed(line, at(0));
        assert!(!talk.lines.is_empty() && talk.says.is_empty(), "{line}");
    }
    let key = "0b".repeat(32);
    for (line, frame) in [
        ("/devices".into(), ClientFrame::Devices),
        (format!("/add {key}"), ClientFrame::AddDevice { key: [11; 32] }),
        ("/revoke 2".into(), ClientFrame::RevokeDevice { device: DeviceId(2) }),
        ("/away".into(), ClientFrame::Presence { state: PresenceState::Away }),
    ] {
        talk.typed(&line, at(0));
        assert_eq!(talk.says.pop(), Some(Say::Frame(frame)));
    }
    talk.typed(&"x".repeat(8193), at(0));
    assert!(talk.lines.last().is_some_and(|line| line.contains("8193 bytes")), "{:?}", talk.lines.last());
    assert!(!talk.quits);
    talk.typed("/quit", at(0));
    assert!(talk.quits);
    let mut talk = ann_and_bob();
    talk.typed("/typing", at(0));
    assert_eq!(says(&mut talk, 0), [Say::Frame(ClientFrame::Typing { to: BOB, on: true })]);
    talk.typed("/who", at(0));
    assert!(talk.lines[0].starts_with("you are ann: "), "{:?}", talk.lines);
    assert_eq!(says(&mut talk, 0), [Say::Frame(ClientFrame::Watch { account: BOB })], "how bob is");
    talk.lines.clear();
    talk.typed("/help", at(0));
    for command in ["/to ", "/who", "/devices", "/add ", "/revoke ", "/typing", "/quit"] {
        assert!(talk.lines.iter().any(|line| line.contains(command)), "{command}: {:?}", talk.lines);
    }
}

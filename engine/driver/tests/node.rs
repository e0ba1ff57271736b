//! Whole nodes: real rings, sockets, files and threads.
#![allow(missing_docs)]

mod phones;

use phones::{Login, Phone, Told, config, create, id};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tern_core::lanes::{LANE_BYTES_MIN, boxed_bytes_max};
use tern_driver::{Exit, Node, Place, StartError, StartProgress};
use tern_protocol::envelope::{Kind, Parts};
use tern_protocol::ids::{AccountId, DeviceId, MessageId, PartitionId, Seq, ShardId};
use tern_protocol::phone::frame::GoodbyeReason;
use tern_storage::io::{DiskDone, DiskOp};
use tern_storage::log::{LogConfig, Record, Recovery};

const REGISTER: Login = Login { register: true, knows_server: false, hint: false };
const KNOWN: Login = Login { register: false, knows_server: true, hint: true };

fn settled(node: &Node, mut wanted: impl FnMut(&tern_core::counters::Counters) -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let totals = tern_core::counters::Counters::total(&node.counters());
        if wanted(&totals) {
            return;
        }
        assert!(Instant::now() < end, "not settled: {totals:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn one_message(from: &mut Phone, to: &mut Phone, low: u32) {
    let id = id(low);
    from.send(to.account, id, b"hello");
    let number = to.until(|event| match event {
        Told::Deliver { number, from: sender, id: got, body } if *got == id => {
            assert_eq!((*sender, &body[..]), (from.account, &b"hello"[..]));
            Some(*number)
        }
        _ => None,
    });
    to.ack(number);
    let number = from.until(|event| match event {
        Told::Delivered { number, id: got } if *got == id => Some(*number),
        _ => None,
    });
    from.ack(number);
}

#[test]
fn phones_register_and_talk_across_shards() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(config(data.path(), 2)).unwrap();
    let names: Vec<String> = (0..8).map(|n| format!("ann-{n}")).collect();
    let mut phones: Vec<Phone> =
        names.iter().map(|name| Phone::login(node.phone_addr(), name, REGISTER)).collect();
    // The kernel throws a coin for each: with so many more, the chance that all come in at their home is 1 in 2^40.
    let others: Vec<Phone> =
        (0..32).map(|n| Phone::login(node.phone_addr(), &format!("bob-{n}"), REGISTER)).collect();
    let shards: Vec<_> = names.iter().map(|name| node.control().shard_of_name(name).0).collect();
    assert!(shards.contains(&0) && shards.contains(&1), "names on both shards");
    let mut low = 0;
    for a in 0..phones.len() {
        for b in a + 1..phones.len() {
            let (left, right) = phones.split_at_mut(b);
            low += 1;
            one_message(&mut left[a], &mut right[0], low);
        }
    }
    phones[0].ping(44);
    phones[0].until(|event| (*event == Told::Pong(44)).then_some(()));
    settled(&node, |counters| counters.messages_in == 28 && counters.ticks_delivered == 28);
    let counters = node.counters();
    assert!(counters.iter().all(|shard| shard.sessions_now > 0), "phones live on the shard of their mailbox");
    assert!(counters.iter().map(|shard| shard.mesh_in).sum::<u64>() > 0);
    // Without a hint about half of them came in at the wrong shard.
    assert!(counters.iter().map(|shard| shard.taken_over).sum::<u64>() > 0, "nobody was handed over");
    for report in node.reports() {
        let driver = report.driver;
        assert!(driver.ring_enters > 0 && driver.ring_submissions > 0 && driver.ring_completions > 0);
        assert!(driver.ring_slots_now >= report.counters.connections_now, "{driver:?}");
        assert!(driver.ring_buffers_free_now <= driver.ring_buffers_now && driver.ring_buffers_now > 0);
        let turns: u64 = report.turn.counts().iter().sum();
        assert_eq!(turns, driver.ring_enters, "each turn is one system call and is measured");
        assert!(report.measures.mesh_in.iter().sum::<u64>() == report.counters.mesh_in);
    }
    let sent = || node.reports().iter().flat_map(|report| *report.measures.sent.counts()).sum::<u64>();
    settled(&node, |_| sent() == 28);
    drop((phones, others));
    settled(&node, |counters| counters.connections_now == 0 && counters.sessions_now == 0);
}

#[test]
fn many_phones_with_windows_of_messages() {
    const PHONES: usize = 40;
    const EACH: u32 = 50;
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(config(data.path(), 2)).unwrap();
    let names: Vec<String> = (0..PHONES).map(|n| format!("load-{n}")).collect();
    create(&node, &names);
    let mut phones: Vec<Phone> =
        names.iter().map(|name| Phone::login(node.phone_addr(), name, KNOWN)).collect();
    let accounts: Vec<AccountId> = phones.iter().map(|phone| phone.account).collect();
    std::thread::scope(|scope| {
        for (n, phone) in phones.iter_mut().enumerate() {
            let to = accounts[(n + 1) % PHONES];
            scope.spawn(move || {
                for low in 0..EACH {
                    phone.send(to, id(low + 1), &[n as u8; 300]);
                }
                let (mut got, mut ticked) = (0, 0);
                while got < EACH || ticked < EACH {
                    match phone.next() {
                        Told::Deliver { number, body, .. } => {
                            assert_eq!(body, [((n + PHONES - 1) % PHONES) as u8; 300]);
                            got += 1;
                            phone.ack(number);
                        }
                        Told::Delivered { number, .. } => {
                            ticked += 1;
                            phone.ack(number);
                        }
                        Told::Sent(_) | Told::Drained => {}
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    settled(&node, |counters| counters.mail_count_now == 0);
    settled(&node, |counters| counters.messages_in == u64::from(EACH) * PHONES as u64);
}

/// Each is sent when the one before it is over: nothing is under way when its shard looks.
#[test]
fn large_messages_between_shards_pass_however_many_there_are() {
    const BODY_BYTES: usize = 32 << 10;
    // Each may have few of them on their way.
    const SHARDS: u16 = 16;
    let data = tempfile::tempdir().unwrap();
    let mut wanted = config(data.path(), SHARDS);
    wanted.limits.lane_bytes = LANE_BYTES_MIN;
    wanted.limits.commit_bytes = 128 << 10;
    wanted.segment_bytes = 512 << 10;
    let node = Node::start(wanted).unwrap();
    let on = |shard| {
        let mut names = (0..).map(|n| format!("large-{n}"));
        names.find(|name| node.control().shard_of_name(name) == ShardId(shard)).unwrap()
    };
    let mut phones = [on(0), on(1)].map(|name| Phone::login(node.phone_addr(), &name, REGISTER));
    let [from, to] = &mut phones;
    let count = 2 * boxed_bytes_max(SHARDS, BODY_BYTES) / BODY_BYTES;
    for n in 0..count as u32 {
        let id = id(n + 1);
        from.send(to.account, id, &[n as u8; BODY_BYTES]);
        let (number, body) = to.until(|event| match event {
            Told::Deliver { number, id: got, body, .. } if *got == id => Some((*number, body.clone())),
            _ => None,
        });
        assert!(body == [n as u8; BODY_BYTES]);
        to.ack(number);
        let number = from.until(|event| match event {
            Told::Delivered { number, id: got } if *got == id => Some(*number),
            _ => None,
        });
        from.ack(number);
    }
    settled(&node, |counters| counters.messages_in == count as u64 && counters.lane_full == 0);
}

#[test]
fn waiting_mail_survives_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let names = ["sender".to_owned(), "away-1".to_owned(), "away-2".to_owned()];
    let node = Node::start(config(data.path(), 2)).unwrap();
    create(&node, &names);
    let away: Vec<AccountId> =
        names[1..].iter().map(|name| Phone::login(node.phone_addr(), name, KNOWN).account).collect();
    let mut sender = Phone::login(node.phone_addr(), "sender", KNOWN);
    let mut sent = vec![];
    for (n, &to) in away.iter().enumerate() {
        let id = id(n as u32 + 1);
        sender.send(to, id, b"while you were out");
        sender.until(|event| (*event == Told::Sent(id)).then_some(()));
        sent.push(id);
    }
    drop(node); // at once, without a drain: `sent` is the promise
    let node = Node::start(config(data.path(), 2)).unwrap();
    assert!(node.recovery().iter().map(|report| report.record_count).sum::<u64>() >= 5);
    assert!(node.recovery().iter().all(|report| report.rot.is_empty()));
    for (name, id) in names[1..].iter().zip(sent) {
        let mut phone = Phone::login(node.phone_addr(), name, KNOWN);
        let got = phone.until(|event| match event {
            Told::Deliver { id, body, .. } => Some((*id, body.clone())),
            _ => None,
        });
        assert_eq!(got, (id, b"while you were out".to_vec()));
    }
}

#[test]
fn more_mail_than_a_shard_may_hold_survives_a_restart() {
    const COUNT: u32 = 150;
    let data = tempfile::tempdir().unwrap();
    let names = ["sender".to_owned(), "away".to_owned()];
    let node = Node::start(config(data.path(), 1)).unwrap();
    create(&node, &names);
    let away = Phone::login(node.phone_addr(), "away", KNOWN).account;
    let mut sender = Phone::login(node.phone_addr(), "sender", KNOWN);
    let mut sent = vec![];
    for n in 1..=COUNT {
        let id = id(n);
        sender.send(away, id, &[n as u8; 30_000]);
        sender.until(|event| (*event == Told::Sent(id)).then_some(()));
        sent.push((id, vec![n as u8; 30_000]));
    }
    drop(node);
    let file_count = std::fs::read_dir(data.path().join("shard-000")).unwrap().count();
    let mut tight = config(data.path(), 1);
    tight.limits.mail_bytes = 1 << 20;
    let progress = Arc::new(StartProgress::new(1));
    let mut node = Node::start_watched(tight, &progress).unwrap();
    node.open().unwrap();
    let shard = progress.shards().next().unwrap();
    assert!(shard.segment_count as usize > file_count, "some were read again: {shard:?}");
    assert_eq!(shard.read_count, shard.segment_count);
    let mut phone = Phone::login(node.phone_addr(), "away", KNOWN);
    for message in sent {
        let (number, got) = phone.until(|event| match event {
            Told::Deliver { number, id, body, .. } => Some((*number, (*id, body.clone()))),
            _ => None,
        });
        assert!(got == message, "{:?} instead of {:?}", got.0, message.0);
        phone.ack(number);
    }
}

#[test]
fn a_drain_says_goodbye_and_ends() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(config(data.path(), 2)).unwrap();
    let names: Vec<String> = (0..6).map(|n| format!("bob-{n}")).collect();
    let mut phones: Vec<Phone> =
        names.iter().map(|name| Phone::login(node.phone_addr(), name, REGISTER)).collect();
    let address = node.phone_addr();
    node.drain();
    for phone in &mut phones {
        phone.until(|event| (*event == Told::Goodbye(GoodbyeReason::Draining)).then_some(()));
        while !phone.ended {
            phone.next();
        }
    }
    assert_eq!(node.wait(), Exit::Drained);
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    Node::start(config(data.path(), 2)).unwrap();
}

#[test]
fn what_keeps_a_node_from_starting_is_named() {
    let data = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut wanted = config(data.path(), 2);
    wanted.phone = taken.local_addr().unwrap();
    assert!(matches!(Node::start(wanted), Err(StartError::Bind(..))));

    let mut wanted = config(data.path(), 1);
    wanted.limits.write_back_ms = 1000;
    assert!(matches!(Node::start(wanted), Err(StartError::Limits(error)) if error.name == "write_back_ms"));

    drop(Node::start(config(data.path(), 2)).unwrap());
    assert!(matches!(Node::start(config(data.path(), 1)), Err(StartError::MoreShards(_))));

    // A segment of shard 1 in shard 0's directory.
    let segment = std::fs::read_dir(data.path().join("shard-001")).unwrap().next().unwrap().unwrap();
    let stranger = data.path().join("shard-000").join("seg-000000ff.log");
    let formatted = |path: &std::path::Path| std::fs::read(path).unwrap()[..8] == *b"TERNSEG1";
    let mut source = segment.path();
    for entry in std::fs::read_dir(data.path().join("shard-001")).unwrap() {
        let path = entry.unwrap().path();
        if formatted(&path) {
            source = path;
        }
    }
    std::fs::copy(source, &stranger).unwrap();
    let error = Node::start(config(data.path(), 2)).unwrap_err();
    assert!(matches!(&error, StartError::Recovery(path, _) if *path == stranger), "{error}");

    // Also while the other shard is held up by a drive that does not answer: as whoever opens a pipe to read, until somebody
    // writes.
    let pipes = [stranger.with_file_name("seg-000000fe.log"), data.path().join("shard-001/seg-000000ff.log")];
    assert!(Command::new("mkfifo").args(&pipes).status().unwrap().success());
    // Opened for both, it holds up nobody, whoever comes when.
    let let_go = |pipe: &Path| File::options().read(true).write(true).open(pipe).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let again = config(data.path(), 2);
    std::thread::spawn(move || tell.send(Node::start(again).unwrap_err()));
    // Both are held up by then, or the failure comes first, which shows less.
    std::thread::sleep(Duration::from_millis(300));
    let first = let_go(&pipes[0]);
    let error = told.recv_timeout(Duration::from_secs(60)).expect("why it does not start is told");
    assert!(matches!(&error, StartError::Recovery(path, _) if *path == stranger), "{error}");
    drop((first, let_go(&pipes[1])));
}

#[test]
fn rude_sockets_leave_nothing_behind() {
    let data = tempfile::tempdir().unwrap();
    let mut wanted = config(data.path(), 2);
    wanted.limits.login_ms = 300;
    wanted.limits.connection_count = 50;
    let node = Node::start(wanted).unwrap();
    for round in 0..400_u32 {
        let mut stream = TcpStream::connect(node.phone_addr()).unwrap();
        match round % 4 {
            0 => {}
            1 => drop(stream.write_all(b"GET / HTTP/1.1\r\n\r\n")),
            2 => drop(stream.write_all(b"TRN\x01")),
            // Reset: unread or unsent bytes are thrown away by a close.
            _ => drop(stream.write_all(&[0xff; 5000])),
        }
    }
    settled(&node, |counters| counters.accepted >= 300 && counters.connections_now == 0);
    let mut a = Phone::login(node.phone_addr(), "after-a", REGISTER);
    let mut b = Phone::login(node.phone_addr(), "after-b", REGISTER);
    one_message(&mut a, &mut b, 1);
}

#[test]
fn a_start_is_watched_and_idle_shards_turn_when_they_are_due() {
    let data = tempfile::tempdir().unwrap();
    let wrong = Arc::new(StartProgress::new(3));
    assert!(matches!(Node::start_watched(config(data.path(), 2), &wrong), Err(StartError::Config(_))));
    let progress = Arc::new(StartProgress::new(2));
    let node = Node::start_watched(config(data.path(), 2), &progress).unwrap();
    assert!(progress.shards().all(|shard| shard.took.is_some() && shard.segment_count == 0));
    drop(node);
    // The second start has a log to read.
    let progress = Arc::new(StartProgress::new(2));
    let node = Node::start_watched(config(data.path(), 2), &progress).unwrap();
    for shard in progress.shards() {
        assert!(shard.segment_count > 0 && shard.read_count == shard.segment_count, "{shard:?}");
    }
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    let end = Instant::now() + Duration::from_millis(2500);
    // A busy machine lets the shards run late, as it does with this thread.
    let mut own_late = Duration::ZERO;
    while Instant::now() < end {
        let late = node.turns_late_by();
        let allowed = Duration::from_secs(2) + own_late;
        assert!(late.len() == 2 && late.iter().all(|late| *late < allowed), "{late:?}, allowed {allowed:?}");
        let asleep = Instant::now();
        std::thread::sleep(LOOK_EVERY);
        own_late += asleep.elapsed().saturating_sub(LOOK_EVERY);
    }
}

/// What the nodes of this process log.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn where_memory_is_not_bound_to_its_node_the_log_says_so_and_the_node_serves() {
    tracing_subscriber::fmt().with_writer(|| Log).with_ansi(false).init();
    let data = tempfile::tempdir().unwrap();
    let mut wanted = config(data.path(), 2);
    // The call is refused, as where it is forbidden: no machine has so many.
    wanted.cpus = Some(vec![Place { cpu: 0, numa_node: Some(1000), steer: false }]);
    let node = Node::start(wanted).unwrap();
    let log = String::from_utf8(LOG.lock().unwrap().clone()).unwrap();
    assert_eq!(log.matches("memory could not be bound to the shards' NUMA nodes").count(), 1, "{log}");
    let mut phones = ["ann", "bob"].map(|name| Phone::login(node.phone_addr(), name, REGISTER));
    let [ann, bob] = &mut phones;
    one_message(ann, bob, 1);
}

/// Whether somebody listens there.
fn is_open(address: SocketAddr) -> bool {
    match TcpStream::connect(address) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn nobody_is_let_in_before_every_shard_can_serve_and_the_node_says_so() {
    let data = tempfile::tempdir().unwrap();
    let mut wanted = config(data.path(), 2);
    // An address that is known before the node tells it.
    wanted.phone = TcpListener::bind(wanted.phone).unwrap().local_addr().unwrap();
    // A segment on a drive that does not answer: whoever opens a pipe to read waits for somebody who writes.
    let directory = data.path().join("shard-001");
    std::fs::create_dir(&directory).unwrap();
    let segment = directory.join("seg-000000ff.log");
    let pipe = data.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::fs::hard_link(&pipe, &segment).unwrap();
    let progress = Arc::new(StartProgress::new(2));
    let (address, watched) = (wanted.phone, Arc::clone(&progress));
    let starting = std::thread::spawn(move || Node::start_watched(wanted, &watched));
    let end = Instant::now() + Duration::from_secs(10);
    while progress.shards().next().unwrap().took.is_none() {
        assert!(Instant::now() < end && !starting.is_finished(), "the first shard does not recover");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!is_open(address), "the second shard recovers, and its phones would wait with the first one");
    // The drive answers, and an empty segment is there by then.
    let empty = data.path().join("empty");
    std::fs::write(&empty, vec![0; 4 << 20]).unwrap();
    std::fs::rename(&empty, &segment).unwrap();
    let pipe = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    drop(pipe);
    let mut node = starting.join().unwrap().unwrap();
    assert!(!is_open(address), "whoever started it has not opened it");
    node.open().unwrap();
    let phones: Vec<Phone> = (0..8)
        .map(|n| Phone::login(address, &format!("ann-{n}"), Login { hint: true, ..REGISTER }))
        .collect();
    settled(&node, |counters| counters.sessions_now == phones.len() as u64);
    assert!(node.counters().iter().all(|shard| shard.sessions_now > 0), "both shards serve");
}

/// A shard's log of one message from this second; its account is nowhere.
fn log_with_mail_of(directory: &Path, stream: u16, time_s: u64) {
    let config = LogConfig {
        stream,
        segment_bytes: 4 << 20,
        commit_bytes_max: 1 << 20,
        spare_count: 1,
        segment_count_max: 10,
        salt_seed: 1,
    };
    let mailbox = AccountId::new(PartitionId(1), 1);
    let parts = Parts {
        kind: Kind::Message,
        flags: 0,
        to: mailbox,
        from: mailbox,
        from_device: DeviceId(1),
        id: MessageId(time_s << 32),
        time_ms: time_s * 1000,
        seq: 0,
        from_name: "somebody",
        body: b"of another time",
    };
    let mut envelope = Vec::new();
    parts.encode(&mut envelope);
    let (mut log, _) = Recovery::new(config).finish();
    log.recovered_done();
    let (mut ops, mut arena, mut files) = (Vec::new(), Vec::new(), BTreeMap::new());
    log.want_spares(&mut ops);
    let mut is_written = false;
    while let Some(op) = ops.pop() {
        let done = match op {
            DiskOp::Create { segment, bytes } => {
                files.insert(segment, vec![0; bytes as usize]);
                DiskDone::Created { segment, result: Ok(()) }
            }
            DiskOp::Write { segment, offset, data } => {
                let at = offset as usize;
                let file = files.get_mut(&segment).unwrap();
                file[at..at + data.len()].copy_from_slice(&arena[data]);
                DiskDone::Written { segment, offset, result: Ok(()) }
            }
        };
        log.disk_done(done, &mut ops);
        if ops.is_empty() && !std::mem::replace(&mut is_written, true) {
            let mut commit = log.begin(&mut arena);
            commit.push(&Record::Mail { mailbox, seq: Seq(1), envelope: &envelope }).unwrap();
            commit.finish(&mut ops).unwrap();
        }
    }
    std::fs::create_dir_all(directory).unwrap();
    for (segment, bytes) in files {
        std::fs::write(directory.join(format!("seg-{:08x}.log", segment.0)), bytes).unwrap();
    }
}

#[test]
fn shards_with_nothing_in_their_logs_begin_at_the_time_of_the_others() {
    let data = tempfile::tempdir().unwrap();
    // An hour ahead of this machine's clock, in the log of one shard of three.
    let ahead_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3_600;
    log_with_mail_of(&data.path().join("shard-001"), 1, ahead_s);
    let node = Node::start(config(data.path(), 3)).unwrap();
    settled(&node, |totals| (totals.orphans_now, totals.clock_doubted_now) == (1, 3));
    node.drain();
    assert_eq!(node.wait(), Exit::Drained);
}

//! What a phone wants to change about its account's devices, what it makes of the answers, and its own end.

use super::Phone;
use crate::plan::Fault;
use crate::scene::{Event, Scene};
use crate::schedule::MS;
use tern_protocol::ids::DeviceId;
use tern_protocol::phone::frame::{ClientFrame, ErrorCode};

/// How often the phone of a revoked device tries to log in again.
pub(super) const KNOCK_COUNT: u32 = 4;

/// A change of devices, by the index of the phone that has the device's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// One more.
    Add(usize),
    /// One less.
    Revoke(usize),
}

/// A wish without an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    wish: Wish,
    /// Whether it was said on this connection.
    said: bool,
    /// Not before that.
    due_ns: u64,
    /// Whether it is forgotten when the connection ends without an answer.
    forgets: bool,
}

impl Wanted {
    /// The connection has ended: whether the wish is said again on the next one.
    pub(super) fn outlives_connection(&mut self) -> bool {
        let is_over = self.said && self.forgets;
        self.said = false;
        !is_over
    }
}

impl Phone {
    /// Wants a change of devices, and asks for it when it can.
    pub fn wish(&mut self, scene: &mut Scene, wish: Wish, forgets: bool) {
        if !self.wants(wish) {
            self.wishes.push(Wanted { wish, said: false, due_ns: 0, forgets });
        }
        self.act(scene);
    }

    /// Whether it waits for an answer to that.
    #[must_use]
    pub fn wants(&self, wish: Wish) -> bool {
        self.wishes.iter().any(|wanted| wanted.wish == wish)
    }

    /// Says what it wants and has not said; says when to look again.
    pub(super) fn say_wishes(&mut self, scene: &mut Scene) -> u64 {
        let mut wake_ns = u64::MAX;
        let now_ns = scene.now_ns();
        let Some(connection) = &mut self.connection else { return wake_ns };
        let mut is_asked = false;
        // Who asks again for a device that came, and was revoked meanwhile, would add it a second time.
        let came = |wanted: &Wanted| match wanted.wish {
            Wish::Add(phone) => scene.oracle.devices.0[phone].since.is_some(),
            Wish::Revoke(_) => false,
        };
        self.wishes.retain(|wanted| wanted.said || !came(wanted));
        for wanted in self.wishes.iter_mut().filter(|wanted| !wanted.said) {
            if wanted.due_ns > now_ns {
                wake_ns = wake_ns.min(wanted.due_ns);
                continue;
            }
            let devices = &mut scene.oracle.devices.0;
            let frame = match wanted.wish {
                Wish::Add(phone) => {
                    devices[phone].add_asked = true;
                    ClientFrame::AddDevice { key: devices[phone].key }
                }
                Wish::Revoke(phone) => {
                    devices[phone].revoke_asked = true;
                    // Only who is there is chosen, so its number is known.
                    ClientFrame::RevokeDevice { device: devices[phone].id.unwrap_or(DeviceId(0)) }
                }
            };
            connection.client.send(&frame);
            (wanted.said, is_asked) = (true, true);
        }
        if is_asked
            && let Some(Fault::CrashOnChange(crash, within_ns, down_ns)) = scene.crash_on_change.take()
        {
            let delay_ns = scene.random().below(within_ns);
            scene.schedule.after(delay_ns, Event::Crash(Fault::Crash(crash, down_ns)));
        }
        wake_ns
    }

    /// The account's devices as they are on stable storage: what it wanted and finds there is done for good.
    pub(super) fn hear_devices(&mut self, scene: &mut Scene, list: &[(DeviceId, [u8; 32])]) {
        let Some(connection) = &self.connection else { return };
        let (serial, now_ns) = (scene.oracle.messages.len(), scene.now_ns());
        let devices = &mut scene.oracle.devices;
        let mut verdict = devices.listed(self.account, list, connection.began_ns, serial, now_ns);
        self.wishes.retain(|wanted| {
            let (Wish::Add(phone) | Wish::Revoke(phone)) = wanted.wish;
            let is_listed = list.iter().any(|(_, key)| *key == devices.0[phone].key);
            let is_done = wanted.said && is_listed == matches!(wanted.wish, Wish::Add(_));
            if is_done && !is_listed && verdict.is_ok() {
                verdict = devices.is_revoked(phone, serial, now_ns);
            }
            !is_done
        });
        scene.judge(verdict);
    }

    /// Something that it wanted was refused; which one is not said.
    pub(super) fn hear_devices_refused(&mut self, scene: &mut Scene, code: ErrorCode) {
        let due_ns = scene.now_ns() + 100 * MS + scene.random().below(200 * MS);
        match code {
            ErrorCode::LastDevice => self.wishes.retain(|wanted| !matches!(wanted.wish, Wish::Revoke(_))),
            // Another phone may have done it: the list will tell.
            ErrorCode::UnknownDevice => {
                if let Some(connection) = &mut self.connection {
                    connection.client.send(&ClientFrame::Devices);
                }
            }
            ErrorCode::Internal => {
                for wanted in &mut self.wishes {
                    (wanted.said, wanted.due_ns) = (false, due_ns);
                }
            }
            _ => {
                let index = self.index;
                scene.schedule.fail(format!("a change of devices of phone {index} was refused: {code:?}"));
            }
        }
    }

    /// Its key opens nothing: it was revoked, or its adding was not heard of yet.
    pub(super) fn hear_key_refused(&mut self, scene: &mut Scene) {
        let began_ns = self.connection.as_ref().map_or(0, |connection| connection.began_ns);
        let device = &scene.oracle.devices.0[self.index];
        if device.since.is_some() && device.since_ns <= began_ns {
            self.is_revoked(scene);
        } else {
            self.hang_up(scene);
            self.come_back(scene, 100);
        }
    }

    /// The server says that its device is no more. It tries again all the same, for some time.
    pub(super) fn is_revoked(&mut self, scene: &mut Scene) {
        let (serial, now_ns) = (scene.oracle.messages.len(), scene.now_ns());
        let verdict = scene.oracle.devices.is_revoked(self.index, serial, now_ns);
        scene.judge(verdict);
        self.knocks_left = self.knocks_left.saturating_sub(1);
        self.wishes.clear();
        self.unread.clear();
        self.outbox = crate::outbox::Outbox::default();
        self.hang_up(scene);
        self.come_back(scene, 200);
    }

    /// It was welcomed: on a connection that began after somebody was told of its end, that must not be.
    pub(super) fn check_not_revoked(&self, scene: &mut Scene) {
        let Some(connection) = &self.connection else { return };
        let revoked = scene.oracle.devices.0[self.index].revoked;
        let is_gone = revoked.is_some_and(|revoked| revoked.time_ns <= connection.began_ns);
        let index = self.index;
        scene.schedule.check(!is_gone, || format!("phone {index} was revoked, and is welcomed again"));
    }
}

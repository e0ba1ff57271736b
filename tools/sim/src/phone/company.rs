//! Who is there and who is typing: said in some runs, dropped where there is no room, and never made up.

use super::Phone;
use crate::scene::Scene;
use std::collections::BTreeSet;
use tern_protocol::ids::AccountId;
use tern_protocol::phone::frame::{ClientFrame, PresenceState};

/// What was said in a run that nobody keeps.
#[derive(Debug, Default)]
pub struct Company {
    /// Who typed to whom, by the indexes of their accounts.
    typed: BTreeSet<(usize, usize)>,
    /// Accounts of which a phone said that nobody looks at it.
    away: BTreeSet<usize>,
    /// Phones that want to know how present an account is.
    watched: BTreeSet<(usize, AccountId)>,
}

/// How often a phone that looks at its clock says something, percent.
const SAYS_PERCENT: u64 = 10;

impl Phone {
    /// Says something of itself, or asks for somebody.
    pub(super) fn keep_company(&mut self, scene: &mut Scene) {
        if !scene.plan.is_social || scene.is_calm || !scene.random().chance(SAYS_PERCENT) {
            return;
        }
        let Some(connection) = self.connection.as_mut().filter(|_| !self.known.is_empty()) else { return };
        let pick = scene.random().index(self.known.len());
        let Some((&index, &account)) = self.known.iter().nth(pick) else { return };
        let on = scene.random().chance(50);
        let frame = match scene.random().below(3) {
            0 => {
                scene.company.watched.insert((self.index, account));
                ClientFrame::Watch { account }
            }
            1 => {
                scene.company.typed.insert((self.account, index));
                ClientFrame::Typing { to: account, on }
            }
            _ if on => ClientFrame::Presence { state: PresenceState::Available },
            _ => {
                scene.company.away.insert(self.account);
                ClientFrame::Presence { state: PresenceState::Away }
            }
        };
        connection.client.send(&frame);
    }

    pub(super) fn hear_presence(
        &self,
        scene: &mut Scene,
        account: AccountId,
        state: PresenceState,
        seen_s: u32,
    ) {
        let of = scene.oracle.account_of(account);
        let is_asked_for = scene.company.watched.contains(&(self.index, account));
        let is_said = state != PresenceState::Away || of.is_some_and(|of| scene.company.away.contains(&of));
        let is_past = u64::from(seen_s) <= scene.schedule.wall_ms() / 1000;
        let index = self.index;
        scene.schedule.check(is_asked_for && is_said && is_past, || {
            format!("phone {index} was told that {account:?} is {state:?}, seen at {seen_s} s")
        });
    }

    pub(super) fn hear_typing(&self, scene: &mut Scene, from: AccountId) {
        let author = scene.oracle.account_of(from);
        let is_said = author.is_some_and(|author| scene.company.typed.contains(&(author, self.account)));
        let index = self.index;
        scene.schedule.check(is_said, || format!("phone {index} was told that {from:?} is typing to it"));
    }
}

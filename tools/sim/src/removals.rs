//! The operator removes accounts. For the model that is the revoking of all their devices: an answer is final, and
//! without one an account may be there or not until somebody finds out.

use crate::node::Node;
use crate::phone::Phone;
use crate::plan::Fault;
use crate::scene::{Event, Scene};
use tern_core::control::{ControlReply, ControlRequest};

/// Answers to removals have this in their tokens, beside the account's index.
const TOKEN: u64 = 1 << 32;

/// A removal without an answer.
#[derive(Debug)]
struct Removal {
    account: usize,
    /// Whether it is given up when the node stops, or refuses it.
    forgets: bool,
    /// The node stops, soon after it was asked.
    crash: Option<(Fault, u64)>,
    /// In which life of the node it was asked for; zero if in none.
    asked_boot: u32,
    /// Whether it may have been done in an earlier one.
    asked_before: bool,
}

/// What the operator still wants.
#[derive(Debug, Default)]
pub struct Removals(Vec<Removal>);

impl Removals {
    /// The operator wants an account removed. Its phones do not make it anew.
    pub fn want(&mut self, scene: &Scene, phones: &mut [Phone], fault: Fault) {
        let Fault::RemoveAccount(account, forgets, crash) = fault else { return };
        if !scene.exists.contains(&account) {
            return;
        }
        for (phone, _) in scene.oracle.devices.of(account) {
            phones[phone].registers = false;
        }
        let crash = crash.map(|(crash, within_ns, down_ns)| (Fault::Crash(crash, down_ns), within_ns));
        self.0.push(Removal { account, forgets, crash, asked_boot: 0, asked_before: false });
    }

    /// Whether something is wanted that may not be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Asks for what is to be asked for.
    pub fn ask(&mut self, scene: &mut Scene, node: &mut Node, phones: &[Phone]) {
        if !node.is_serving() {
            return;
        }
        self.0.retain(|removal| !removal.forgets || [0, node.boot].contains(&removal.asked_boot));
        for removal in &mut self.0 {
            let account = removal.account;
            let may_come_back =
                scene.oracle.devices.of(account).any(|(phone, _)| phones[phone].may_register());
            if removal.asked_boot == node.boot || may_come_back {
                continue;
            }
            removal.asked_before |= removal.asked_boot != 0;
            removal.asked_boot = node.boot;
            scene.oracle.is_to_be_removed(account);
            let name = scene.oracle.accounts[account].name.clone();
            let home = node.home_of_name(&name);
            node.ask(scene, home, TOKEN | account as u64, ControlRequest::RemoveAccount { name });
            if let Some((crash, within_ns)) = removal.crash.take() {
                let delay_ns = scene.random().below(within_ns);
                scene.schedule.after(delay_ns, Event::Crash(crash));
            }
        }
    }

    /// Takes an answer of the control plane; false if it is none to a removal.
    pub fn hear(&mut self, scene: &mut Scene, token: u64, reply: &ControlReply) -> bool {
        let account = (token & !TOKEN) as usize;
        let Some(at) = self.0.iter().position(|removal| token & TOKEN != 0 && removal.account == account)
        else {
            return token & TOKEN != 0;
        };
        match reply {
            ControlReply::Removed(was_there) => {
                let asked_before = self.0.remove(at).asked_before;
                let is_right = *was_there || asked_before;
                scene.schedule.check(is_right, || format!("account {account} was not there to be removed"));
                scene.account_is_gone(account);
            }
            // Asked again at the next look.
            ControlReply::Refused if !self.0[at].forgets => self.0[at].asked_boot = 0,
            ControlReply::Refused => drop(self.0.remove(at)),
            _ => scene.schedule.fail(format!("a wrong answer to a removal: {reply:?}")),
        }
        true
    }
}

//! SIGHUP: the admin endpoint's token, certificate and key are read again, on a thread of their own. A file may hang, as on
//! a drive of the network that has gone: the thread that serves the endpoint, tells the watchdog and drains must not
//! hang with it.

use crate::admin::{Gate, Identity};
use crate::config::AdminAccess;
use crate::data::Token;
use crate::exit::Failure;
use std::cell::OnceCell;
use std::io;
use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use tracing::{info, warn};

/// What is read, and where it goes. It knows nothing of the node, whose end waits for nobody who reads.
#[derive(Clone)]
pub(crate) struct Reloaded {
    /// The files.
    pub(crate) access: AdminAccess,
    /// Who has the token.
    pub(crate) gate: Arc<Gate>,
    /// Who the endpoint is.
    pub(crate) tls: Option<Arc<RwLock<Identity>>>,
}

/// Whom to ask for it.
pub(crate) struct Reloader {
    what: Reloaded,
    /// To the thread, which is started when it is first needed, and stays where its maker may run then.
    wishes: OnceCell<SyncSender<()>>,
}

impl Reloader {
    /// Nothing is read yet.
    pub(crate) fn new(what: Reloaded) -> Self {
        Self { what, wishes: OnceCell::new() }
    }

    /// Asks for it, and waits for nothing. The files are read once more after this, however many ask meanwhile.
    pub(crate) fn ask(&self) {
        let wishes = match self.wishes.get() {
            Some(wishes) => wishes,
            None => match start(&self.what) {
                Ok(wishes) => self.wishes.get_or_init(|| wishes),
                Err(error) => return warn!(%error, "nothing is reloaded: no thread for it"),
            },
        };
        match wishes.try_send(()) {
            Ok(()) => {}
            Err(TrySendError::Full(())) => {
                warn!("the admin endpoint's files are still being read: nothing is reloaded before that ends")
            }
            Err(TrySendError::Disconnected(())) => warn!("nothing is reloaded: who did it has ended"),
        }
    }
}

fn start(what: &Reloaded) -> io::Result<SyncSender<()>> {
    let what = what.clone();
    // One is read for while another one waits.
    let (wishes, to_do) = sync_channel(1);
    thread::Builder::new().name("reload".into()).spawn(move || to_do.iter().for_each(|()| what.reload()))?;
    Ok(wishes)
}

impl Reloaded {
    /// What cannot be used changes nothing.
    fn reload(&self) {
        let access = &self.access;
        let token = access.token_file.as_deref().map(token).transpose();
        let identity = access.tls.as_ref().map(Identity::read).transpose();
        match token.and_then(|token| Ok((token, identity?))) {
            Err(failure) => warn!("nothing is reloaded: {}", failure.text),
            Ok((token, identity)) => self.take(token, identity),
        }
    }

    fn take(&self, token: Option<Token>, identity: Option<Identity>) {
        let token = token.map(|token| self.gate.set_token(token));
        let certificate = self.tls.as_deref().zip(identity).map(|(tls, identity)| {
            let mut tls = tls.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *tls, identity).chain() != tls.chain()
        });
        // Whoever brings the files may have brought the old ones once more, as systemd does with LoadCredential=.
        let (token, certificate) = (news(token), news(certificate));
        info!(token, certificate, "reloaded the admin endpoint's access; all else needs a restart");
    }
}

fn token(file: &Path) -> Result<Token, Failure> {
    let gone = || Failure::start_up(format!("admin.token_file = {}: there is no such file", file.display()));
    Token::read(file)?.ok_or_else(gone)
}

/// What became of something that was read again, if there is such a thing.
fn news(has_changed: Option<bool>) -> &'static str {
    match has_changed {
        Some(true) => "new",
        Some(false) => "unchanged",
        None => "none",
    }
}

//! The workers: each is a thread with a ring of its own, a slice of the phones, and the books of that slice.
//!
//! A ring's descriptor table holds at most RLIMIT_NOFILE sockets, which is what limits the phones of a worker. Threads
//! and not several rings on one thread: a thread waits on one ring, and one that has nothing to do costs nothing.
//! The leading thread gives orders (a closure that a worker runs between two turns) and reads counts, which each worker
//! publishes after every turn, so that watching wakes nobody.

use crate::fleet::{Counts, Fleet};
use anyhow::{Context, Result, bail};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tern_ring::Waker;

/// The longest turn; orders end it early.
const TURN_NS: u64 = 60_000_000_000;

type Order = Box<dyn FnOnce(&mut Fleet, &Published) + Send>;

#[derive(Clone, Default)]
struct Published(Arc<Mutex<Counts>>);

impl Published {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Counts are plain numbers: a panic elsewhere leaves none half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Worker {
    orders: Sender<Order>,
    waker: Waker,
    published: Published,
    thread: JoinHandle<()>,
}

/// All workers, in the order of their phones.
#[derive(Default)]
pub(crate) struct Crew {
    workers: Vec<Worker>,
}

impl Crew {
    /// Starts one more thread; its fleet is made on it, because a ring belongs to one.
    pub(crate) fn hire(&mut self, fleet: impl FnOnce() -> Result<Fleet> + Send + 'static) -> Result<()> {
        self.workers.push(Worker::start(fleet)?);
        Ok(())
    }

    /// How many there are.
    pub(crate) fn size(&self) -> usize {
        self.workers.len()
    }

    /// Lets one worker do something. What it changed is in its counts when this returns.
    pub(crate) fn one<T: Send + 'static>(
        &self,
        worker: usize,
        order: impl FnOnce(&mut Fleet) -> T + Send + 'static,
    ) -> Result<T> {
        self.workers[worker].give(order)?.recv().context("a worker has ended")
    }

    /// Lets every worker do the same, all at once: the answers in the order of the workers.
    pub(crate) fn each<T: Send + 'static>(
        &self,
        order: impl FnOnce(&mut Fleet) -> T + Clone + Send + 'static,
    ) -> Result<Vec<T>> {
        let answers: Vec<Receiver<T>> =
            self.workers.iter().map(|worker| worker.give(order.clone())).collect::<Result<_>>()?;
        answers.iter().map(|answer| answer.recv().context("a worker has ended")).collect()
    }

    /// Where one worker stands.
    pub(crate) fn counts_of(&self, worker: usize) -> Counts {
        *self.workers[worker].published.lock()
    }

    /// Where everything stands. Fails when a worker has ended, which none does by itself.
    pub(crate) fn counts(&self) -> Result<Counts> {
        if self.workers.iter().any(|worker| worker.thread.is_finished()) {
            bail!("a worker has ended");
        }
        Ok(self.last_counts())
    }

    /// Where everything stood when it was last published: also by workers that have ended.
    pub(crate) fn last_counts(&self) -> Counts {
        let mut sum = Counts::default();
        self.workers.iter().for_each(|worker| sum += *worker.published.lock());
        sum
    }
}

impl Worker {
    fn start(make: impl FnOnce() -> Result<Fleet> + Send + 'static) -> Result<Self> {
        let (orders, to_do) = channel();
        let (tell, told) = channel();
        let published = Published::default();
        let theirs = published.clone();
        let thread = std::thread::Builder::new()
            .name("load".into())
            .spawn(move || match make() {
                Ok(mut fleet) => {
                    publish(&fleet, &theirs);
                    let _ = tell.send(Ok(fleet.waker()));
                    if let Err(error) = work(&mut fleet, &to_do, &theirs) {
                        publish(&fleet, &theirs);
                        eprintln!("tern-load: {error:#}");
                    }
                }
                Err(error) => {
                    let _ = tell.send(Err(error));
                }
            })
            .context("no thread for a worker")?;
        let waker = told.recv().context("a worker has ended")??;
        Ok(Self { orders, waker, published, thread })
    }

    fn give<T: Send + 'static>(
        &self,
        order: impl FnOnce(&mut Fleet) -> T + Send + 'static,
    ) -> Result<Receiver<T>> {
        let (answer, answered) = channel();
        let order: Order = Box::new(move |fleet, published| {
            let value = order(fleet);
            publish(fleet, published);
            let _ = answer.send(value);
        });
        self.orders.send(order).ok().context("a worker has ended")?;
        self.waker.wake();
        Ok(answered)
    }
}

fn publish(fleet: &Fleet, published: &Published) {
    *published.lock() = fleet.counts();
}

/// Turns until nobody can give orders any more.
fn work(fleet: &mut Fleet, orders: &Receiver<Order>, published: &Published) -> Result<()> {
    loop {
        loop {
            match orders.try_recv() {
                Ok(order) => order(fleet, published),
                Err(std::sync::mpsc::TryRecvError::Empty) => break,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return Ok(()),
            }
        }
        fleet.turn(fleet.clock.now_ns() + TURN_NS)?;
        publish(fleet, published);
    }
}

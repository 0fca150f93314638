//! A node: a name, what it does, and one life after another, each a shard.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ringcall_sim::{Stage, take_caught};

use super::here::{Here, within};
use crate::ServeError;
use crate::shard::{Shard, ShardConfig, Turn, Wait};

/// So often in a row a shard may want another turn at once: one with more goes round in circles.
const TURNS_IN_A_ROW_MAX: u32 = 20_000;
/// How long a node that is told to drain waits for its handlers.
const DRAIN: Duration = Duration::from_secs(10);

type Start = dyn Fn(&Shard) -> Result<(), ServeError>;
type Running = Pin<Box<dyn Future<Output = ()>>>;
type Run = dyn FnOnce(Shard) -> Running;

/// What a node does with its shard.
pub(super) enum Role {
    /// Serves: done at the beginning of each life.
    Server(Box<Start>),
    /// Calls: done once.
    Client(Option<Box<Run>>),
}

pub(super) struct Node {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) config: ShardConfig,
    index: usize,
    life: Option<Life>,
    /// Whether a client has done what it was to do.
    has_ended: Rc<Cell<bool>>,
    /// What its panic said.
    failed: Rc<RefCell<Option<String>>>,
}

struct Life {
    shard: Shard,
    here: Here,
    /// Set when it has drained.
    has_drained: Rc<Cell<bool>>,
    is_draining: bool,
    /// How often it has wanted another turn at once.
    turns_in_a_row: u32,
}

impl Node {
    pub(super) fn new(name: String, role: Role, index: usize) -> Node {
        let has_ended = Rc::new(Cell::new(matches!(role, Role::Server(_))));
        Node {
            name,
            role,
            config: ShardConfig::default(),
            index,
            life: None,
            has_ended,
            failed: Rc::default(),
        }
    }

    pub(super) fn is_server(&self) -> bool {
        matches!(self.role, Role::Server(_))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.get()
    }

    /// What a client's panic said.
    pub(super) fn take_failure(&self) -> Option<String> {
        self.failed.take()
    }

    pub(super) fn is_alive(&self) -> bool {
        self.life.is_some()
    }

    /// Begins a life.
    pub(super) fn start(&mut self, stage: &Stage, names: &Rc<BTreeMap<String, usize>>) {
        if self.life.is_some() {
            return;
        }
        let names = Rc::clone(names);
        let (stage, node) = (stage.clone(), self.index);
        let (jobs, tables) = (Rc::default(), Rc::default());
        let mut here = Here { stage: stage.clone(), node, names, jobs, tables, remote: None };
        stage.lives(node);
        let shard = within(here.clone(), || Shard::new(self.config.clone()));
        let shard = shard.unwrap_or_else(|error| panic!("{} cannot start: {error}", self.name));
        here.remote = Some(Arc::clone(&shard.inner().remote));
        let begun = within(here.clone(), || self.begin(&shard));
        begun.unwrap_or_else(|error| panic!("{} cannot start: {error}", self.name));
        let has_drained = Rc::default();
        self.life = Some(Life { shard, here, has_drained, is_draining: false, turns_in_a_row: 0 });
    }

    fn begin(&mut self, shard: &Shard) -> Result<(), ServeError> {
        match &mut self.role {
            Role::Server(start) => {
                start(shard)?;
                shard.listen(Stage::address(self.index))?;
            }
            Role::Client(run) => {
                let Some(run) = run.take() else { return Ok(()) };
                let (run, has_ended) = (run(shard.clone()), Rc::clone(&self.has_ended));
                let failed = Rc::clone(&self.failed);
                shard.spawn(async move {
                    Watched { run, failed }.await;
                    has_ended.set(true);
                });
            }
        }
        Ok(())
    }

    /// A turn of its shard, and what its pool of threads has to do.
    pub(super) fn turn(&mut self, stage: &Stage) {
        let Some(life) = &mut self.life else { return };
        let Life { shard, here, .. } = life;
        let turned = within(here.clone(), || {
            let job = here.jobs.borrow_mut().pop_front();
            if let Some(job) = job {
                job(None);
            }
            shard.turn(Wait::Now)
        });
        if turned == Turn::MoreWork {
            life.turns_in_a_row += 1;
            assert!(
                life.turns_in_a_row < TURNS_IN_A_ROW_MAX,
                "{} goes round in circles: some task wakes itself again and again",
                self.name
            );
            return stage.turn(self.index);
        }
        life.turns_in_a_row = 0;
        if let Some(at) = shard.inner().next_timeout() {
            stage.turn_at(self.index, at);
        }
    }

    /// Whether others have left something for it to do.
    pub(super) fn has_work(&self) -> bool {
        self.life.as_ref().is_some_and(|life| {
            life.shard.inner().has_work() || !life.here.jobs.borrow().is_empty()
        })
    }

    /// Its life ends here and now.
    pub(super) fn crash(&mut self, stage: &Stage, silently: bool) {
        if let Some(life) = self.life.take() {
            life.shard.inner().die(silently);
            life.end();
            stage.rests(self.index, silently);
        }
    }

    /// It is asked to end.
    pub(super) fn drain(&mut self, stage: &Stage) {
        let Some(life) = &mut self.life else { return };
        if std::mem::replace(&mut life.is_draining, true) {
            return;
        }
        let (shard, has_drained) = (life.shard.clone(), Rc::clone(&life.has_drained));
        within(life.here.clone(), || {
            life.shard.spawn(async move {
                shard.drain(DRAIN).await;
                has_drained.set(true);
            });
        });
        stage.turn(self.index);
    }

    /// Ends its life if it has drained.
    pub(super) fn rest(&mut self, stage: &Stage) {
        if self.life.as_ref().is_some_and(|life| life.has_drained.get())
            && let Some(life) = self.life.take()
        {
            life.end();
            stage.rests(self.index, false);
        }
    }

    /// Its life ends in order: connections are closed, tasks dropped.
    pub(super) fn end(&mut self, stage: &Stage) {
        if let Some(life) = self.life.take() {
            life.end();
            stage.rests(self.index, false);
        }
    }
}

impl Life {
    /// Nothing may be left of it but what its user keeps.
    fn end(self) {
        let Life { shard, here, .. } = self;
        within(here.clone(), || {
            shard.inner().end();
            here.jobs.borrow_mut().clear();
            drop(shard);
        });
    }
}

/// What a client does. Its panics are failures whatever may panic otherwise.
struct Watched {
    run: Running,
    failed: Rc<RefCell<Option<String>>>,
}

impl Future for Watched {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = catch_unwind(AssertUnwindSafe(|| self.run.as_mut().poll(cx)));
        polled.unwrap_or_else(|_| {
            *self.failed.borrow_mut() = Some(take_caught().unwrap_or_default());
            Poll::Pending
        })
    }
}

//! A node: a name, what it does, and one life after another, each a shard.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringcall_sim::Stage;

use super::here::{Here, within};
use crate::shard::{Shard, ShardConfig, Turn, Wait};
use crate::ServeError;

/// How long a node that is told to drain waits for its handlers.
const DRAIN: Duration = Duration::from_secs(10);

type Start = dyn Fn(&Shard) -> Result<(), ServeError>;
type Run = dyn FnOnce(Shard) -> Pin<Box<dyn Future<Output = ()>>>;

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
}

struct Life {
    shard: Shard,
    here: Here,
    /// Set when it has drained.
    has_drained: Rc<Cell<bool>>,
    is_draining: bool,
}

impl Node {
    pub(super) fn new(name: String, role: Role, index: usize) -> Node {
        let has_ended = Rc::new(Cell::new(matches!(role, Role::Server(_))));
        Node { name, role, config: ShardConfig::default(), index, life: None, has_ended }
    }

    pub(super) fn is_server(&self) -> bool {
        matches!(self.role, Role::Server(_))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.get()
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
        self.life = Some(Life { shard, here, has_drained: Rc::default(), is_draining: false });
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
                shard.spawn(async move {
                    run.await;
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
                job();
            }
            shard.turn(Wait::Now)
        });
        if turned == Turn::MoreWork {
            stage.turn(self.index);
        } else if let Some(at) = shard.inner().next_timeout() {
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

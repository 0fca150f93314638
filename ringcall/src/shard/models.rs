//! The mailbox of a shard, its callers and its tasks, in every order of their threads: `cargo xtask models`. A wake
//! that is lost leaves all of them waiting, which loom reports, as it does memory that is left.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as PlainUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use loom::future::block_on;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use ringcall_buf::model::explore;
use ringcall_core::{
    Cause, Codec, Empty, Failure, FailureClass, Handle, Instant, Outcome, Outgoing, Park,
    StreamChannel as _,
};
use ringcall_net::Doorbell;

use super::choice::TransportInfo;
use super::executor::{Executor, Spawned};
use super::incidents::Register;
use super::mail::{Notice, Remote, RemoteCall};
use super::rousing::Rousing;
use crate::client::{Bridge, ConnectionState, Destination, Line, Outbox, Peer, RemoteEnd, Watched};
use crate::observe::Observers;

/// An engine that does nothing but sleep.
struct Engine(Doorbell);

impl Park for Engine {
    type Bell = Doorbell;

    fn arm(&mut self) {
        self.0.arm();
    }

    fn park(&mut self, timeout: Option<Duration>) {
        if timeout.is_none() {
            self.0.wait();
        }
        self.0.disarm();
    }

    fn bell(&self) -> Doorbell {
        self.0.clone()
    }
}

/// A shard that takes what was left for it, a turn at a time.
struct Shard {
    engine: Engine,
    remote: Arc<Remote>,
    /// Calls that were answered, and callers that are done.
    answered: usize,
    released: usize,
    /// Calls that are in flight, and stay so.
    in_flight: Vec<RemoteEnd>,
    streams: Vec<Arc<Bridge>>,
    /// Whether calls are answered at once.
    answers: bool,
    rousing: Rousing,
}

impl Shard {
    fn new(answers: bool) -> Shard {
        let engine = Engine(Doorbell::new().unwrap());
        let transport = TransportInfo::new("model", String::new());
        let register = Register::new(Arc::default());
        let remote =
            Remote::new(engine.bell(), transport, register, Observers::default(), [1 << 20; 2]);
        Shard {
            engine,
            remote,
            answered: 0,
            released: 0,
            in_flight: Vec::new(),
            streams: Vec::new(),
            answers,
            rousing: Rousing::default(),
        }
    }

    fn line(&self) -> Line {
        let watched = Watched::new(ConnectionState::Ready);
        let to = Destination::Peer(Handle { index: 0, generation: 0 });
        Line::new(Arc::clone(&self.remote), to, Outbox::default(), None, watched, None)
    }

    /// As `Inner::work` does.
    fn turn(&mut self) {
        while let Some(notice) = self.remote.next_notice() {
            match notice {
                Notice::Release(_) => self.released += 1,
                Notice::Open(opening) => self.streams.push(opening.bridge),
                _ => {}
            }
        }
        let mut any = false;
        while let Some(call) = self.remote.next_call() {
            any = true;
            self.take(call);
        }
        if any {
            self.remote.admit_crowd();
        }
        self.rouse();
    }

    /// Wakes one of those whose calls have ended, and, as if it had taken its time, the rest.
    fn rouse(&self) {
        self.rousing.rouse(&self.remote, Instant::default());
        self.rousing.rouse(&self.remote, Instant::FAR);
    }

    fn complete(&self, end: RemoteEnd, outcome: Outcome) {
        if let Some((crowd, waker)) = end.complete(outcome) {
            self.rousing.add(&self.remote, crowd, waker);
        }
    }

    fn take(&mut self, call: RemoteCall) {
        match self.answers {
            _ if call.end.is_abandoned() => {}
            false => self.in_flight.push(call.end),
            true => {
                self.answered += 1;
                self.complete(call.end, Outcome::Sent);
            }
        }
    }

    /// Turns, and sleeps in between.
    fn run_until(mut self, is_done: impl Fn(&Shard) -> bool) {
        while !is_done(&self) {
            self.remote.park(&mut self.engine, None);
            self.turn();
        }
    }

    /// A turn, and then there is no shard any more. Says how many calls were in flight.
    fn end(mut self) -> usize {
        self.turn();
        self.remote.close();
        let in_flight = self.in_flight.len();
        for end in std::mem::take(&mut self.in_flight) {
            self.complete(end, Outcome::Failed(Failure::unknown(Cause::Shutdown)));
        }
        self.rousing.rouse_all(&self.remote);
        self.streams.into_iter().for_each(|stream| stream.shut_down());
        in_flight
    }
}

fn outgoing() -> Outgoing {
    Outgoing {
        name: "model",
        method: 1,
        in_signature: 0,
        out_signature: 0,
        codec: Codec::RAW,
        compression: 0,
        timeout: Duration::from_secs(3600),
        priority: 0,
        attempt: 0,
        flags: 0,
        wait_for_ready: false,
    }
}

/// A call that is in nobody's order: `Ok`, or why it failed.
fn call(line: &Line) -> Result<(), Failure> {
    block_on(line.call(outgoing(), Empty, true)).map(drop)
}

#[test]
fn calls_of_two_threads_are_answered() {
    explore("mailbox: two threads call, there is room for one call", Some(2), || {
        let shard = Shard::new(true);
        let callers = [(); 2].map(|()| {
            let line = shard.line();
            thread::spawn(move || call(&line).unwrap())
        });
        shard.run_until(|shard| shard.answered == 2);
        callers.into_iter().for_each(|caller| caller.join().unwrap());
    });
}

#[test]
fn a_call_that_is_given_up_ends() {
    explore("slot: a call is answered while its future is dropped", Some(3), || {
        let shard = Shard::new(true);
        let line = shard.line();
        let caller = thread::spawn(move || {
            let mut call = line.call(outgoing(), Empty, true);
            let mut cx = Context::from_waker(Waker::noop());
            let early = Pin::new(&mut call).poll(&mut cx);
            assert!(early.is_pending() || early.is_ready());
            drop(call);
            // Its slot is not in use by anybody else.
            self::call(&line).unwrap();
            line.remote.notify(Notice::Release(0));
        });
        shard.run_until(|shard| shard.released == 1);
        caller.join().unwrap();
    });
}

#[test]
fn a_call_ends_once_with_its_shard() {
    explore("slot: a call is left while its shard ends", Some(3), || {
        let shard = Shard::new(false);
        let line = shard.line();
        let caller = thread::spawn(move || call(&line));
        let in_flight = shard.end();
        let failure = caller.join().unwrap().expect_err("nobody answers");
        // What was in flight may have run.
        let is_not_sent = failure.class == FailureClass::NotSent;
        assert_eq!(is_not_sent, in_flight == 0, "{failure:?}");
    });
}

#[test]
fn a_callback_is_called_once_with_its_shard() {
    explore("mailbox: a call with a callback is left while its shard ends", Some(3), || {
        let shard = Shard::new(false);
        let line = shard.line();
        let told = Arc::new(PlainUsize::new(0));
        let caller = {
            let told = Arc::clone(&told);
            thread::spawn(move || {
                line.call_with(outgoing(), &Empty, true, move |answer| {
                    assert!(answer.is_err());
                    told.fetch_add(1, Relaxed);
                });
            })
        };
        shard.end();
        caller.join().unwrap();
        assert_eq!(told.load(Relaxed), 1);
    });
}

#[test]
fn a_stream_is_opened_or_refused_while_its_shard_ends() {
    explore("bridge: a call with streams is left while its shard ends", Some(3), || {
        let shard = Shard::new(false);
        let remote = Arc::clone(&shard.remote);
        let caller = thread::spawn(move || {
            let handle = Handle { index: 0, generation: 0 };
            let peer = Peer::new(remote.peer(handle));
            block_on(peer.open(outgoing(), Empty)).map(drop)
        });
        shard.end();
        assert!(caller.join().unwrap().is_err());
    });
}

/// Ready when it was told so; keeps nothing but the first waker, as futures may whose waker stays the same.
struct Told {
    is_told: Arc<AtomicBool>,
    is_done: Rc<Cell<bool>>,
    waker: Rc<Cell<Option<Waker>>>,
}

impl Future for Told {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_told.load(Ordering::Acquire) {
            self.is_done.set(true);
            return Poll::Ready(());
        }
        self.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

#[test]
fn a_task_that_is_woken_is_polled() {
    explore("executor: a task is woken by two threads", Some(3), || {
        let mut shard = Shard::new(true);
        let executor = Executor::new(&shard.remote);
        let is_told = Arc::new(AtomicBool::new(false));
        let (is_done, waker) = (Rc::default(), Rc::default());
        let task = Told {
            is_told: Arc::clone(&is_told),
            is_done: Rc::clone(&is_done),
            waker: Rc::clone(&waker),
        };
        executor.spawn(Box::pin(Spawned { future: task }));
        executor.run(8, || true);
        let waker = waker.take().expect("it was polled");
        let wakers = [false, true].map(|tells| {
            let (waker, is_told) = (waker.clone(), Arc::clone(&is_told));
            thread::spawn(move || {
                if tells {
                    is_told.store(true, Ordering::Release);
                }
                waker.wake();
            })
        });
        while !is_done.get() {
            if !executor.has_ready() {
                shard.remote.park(&mut shard.engine, None);
            }
            executor.run(8, || true);
        }
        wakers.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

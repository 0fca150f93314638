//! The engine of a shard: whichever were compiled in, chosen when the shard is made.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use ringcall_core::{
    Address, Batch, Handle, Listener, Memory, Park, Receive, Transport, TransportError,
    TransportEvent, Write, Written,
};
#[cfg(feature = "epoll")]
use ringcall_epoll::{Epoll, EpollConfig};
use ringcall_net::{Doorbell, Handover, Hosted, Tally};
#[cfg(feature = "uring")]
use ringcall_uring::{Uring, UringConfig};

use super::choice::{TransportChoice, TransportInfo};
use crate::ServeError;

pub(crate) type Socket = <Engine as Transport>::Socket;
pub(crate) type Bell = <Engine as Park>::Bell;

/// One engine or the other. They take the same sockets, so shards of a server need not agree.
#[derive(Debug)]
pub(crate) enum Engine {
    #[cfg(feature = "epoll")]
    Epoll(Box<Epoll>),
    #[cfg(feature = "uring")]
    Uring(Box<Uring>),
    #[cfg(feature = "sim")]
    Simulated(Box<crate::sim::Simulated>),
}

#[cfg(not(any(feature = "epoll", feature = "uring")))]
compile_error!("ringcall needs an engine: enable the feature `epoll`, `uring` or both");

macro_rules! either {
    ($engine:expr, $inner:ident => $use:expr) => {
        match $engine {
            #[cfg(feature = "epoll")]
            Engine::Epoll($inner) => $use,
            #[cfg(feature = "uring")]
            Engine::Uring($inner) => $use,
            #[cfg(feature = "sim")]
            Engine::Simulated($inner) => $use,
        }
    };
}

impl Engine {
    /// The engine that is asked for, or the best that there is.
    pub(crate) fn new(
        memory: &Memory,
        choice: TransportChoice,
        reuse_port: bool,
    ) -> Result<(Engine, TransportInfo), ServeError> {
        #[cfg(feature = "sim")]
        if let Some(simulated) = crate::sim::Simulated::here(memory) {
            let engine = simulated.map_err(|reason| ServeError::Engine { reason })?;
            let info = TransportInfo::new("sim", "in a simulation".to_owned());
            return Ok((Engine::Simulated(Box::new(engine)), info));
        }
        let choice = choice.resolve().map_err(|reason| ServeError::Engine { reason })?;
        let made = match choice {
            TransportChoice::Epoll => epoll(memory, reuse_port, "asked for"),
            TransportChoice::Uring => uring(memory, reuse_port, "asked for"),
            TransportChoice::Auto => {
                uring(memory, reuse_port, "chosen by a probe").or_else(|why| {
                    let reason = match cfg!(feature = "uring") {
                        true => format!("because io_uring cannot be used: {why}"),
                        false => why,
                    };
                    let fallback = epoll(memory, reuse_port, &reason)?;
                    super::choice::note_fallback(&reason);
                    Ok(fallback)
                })
            }
        };
        made.map_err(|reason| ServeError::Engine { reason })
    }

    /// The process of a simulated node ends here and now.
    #[cfg(feature = "sim")]
    pub(crate) fn die(&mut self, silently: bool) {
        if let Engine::Simulated(engine) = self {
            engine.die(silently);
        }
    }

    pub(crate) fn tally(&self) -> &Arc<Tally> {
        either!(self, engine => engine.tally())
    }
}

#[cfg(feature = "epoll")]
fn epoll(memory: &Memory, reuse_port: bool, why: &str) -> Result<(Engine, TransportInfo), String> {
    let mut config = EpollConfig::default();
    config.listen.reuse_port = reuse_port;
    let epoll = Epoll::new(memory, config).map_err(|error| format!("epoll: {error}"))?;
    Ok((Engine::Epoll(Box::new(epoll)), TransportInfo::new("epoll", why.to_owned())))
}

#[cfg(not(feature = "epoll"))]
fn epoll(_: &Memory, _: bool, why: &str) -> Result<(Engine, TransportInfo), String> {
    Err(format!("the epoll engine is not built in: enable the feature `epoll` ({why})"))
}

#[cfg(feature = "uring")]
fn uring(memory: &Memory, reuse_port: bool, why: &str) -> Result<(Engine, TransportInfo), String> {
    let mut config = UringConfig::default();
    config.listen.reuse_port = reuse_port;
    let features = super::choice::ring_features()?;
    let uring = Uring::new(memory, features, config).map_err(|refusal| refusal.to_string())?;
    let missing: Vec<&str> = features.missing().collect();
    let mut why = match missing.is_empty() {
        true => why.to_owned(),
        false => format!("{why}, without {}", missing.join(", ")),
    };
    let (entries, buffers) = (uring.config().entries, uring.config().buffers_max);
    if entries < config.entries || buffers < config.buffers_max {
        let small = format!(
            "with a small ring of {entries} entries and {buffers} buffers, because there is too little memory to lock: raise `ulimit -l`"
        );
        super::choice::note_small_ring(&small);
        why = format!("{why}, {small}");
    }
    Ok((Engine::Uring(Box::new(uring)), TransportInfo::new("uring", why)))
}

#[cfg(not(feature = "uring"))]
fn uring(_: &Memory, _: bool, _: &str) -> Result<(Engine, TransportInfo), String> {
    Err("the io_uring engine is not built in: enable the feature `uring`".to_owned())
}

impl Transport for Engine {
    type Socket = socket2::Socket;

    fn listen(&mut self, address: &Address) -> Result<Listener, TransportError> {
        either!(self, engine => engine.listen(address))
    }

    fn local_address(&self, listener: Listener) -> Option<Address> {
        either!(self, engine => engine.local_address(listener))
    }

    fn unlisten(&mut self, listener: Listener) {
        either!(self, engine => engine.unlisten(listener))
    }

    fn connect(&mut self, address: &Address) -> Result<Handle, TransportError> {
        either!(self, engine => engine.connect(address))
    }

    fn adopt(&mut self, socket: Self::Socket) -> Result<Handle, TransportError> {
        either!(self, engine => engine.adopt(socket))
    }

    #[inline]
    fn send(&mut self, handle: Handle, batch: &mut Batch) -> bool {
        either!(self, engine => engine.send(handle, batch))
    }

    fn can_file(&self) -> bool {
        either!(self, engine => engine.can_file())
    }

    fn write(&mut self, handle: Handle, write: Write) -> Option<Written> {
        either!(self, engine => engine.write(handle, write))
    }

    fn receive_unaligned(&mut self, handle: Handle) {
        either!(self, engine => engine.receive_unaligned(handle))
    }

    #[inline]
    fn receive(&mut self, handle: Handle, how: Receive) {
        either!(self, engine => engine.receive(handle, how))
    }

    fn shutdown(&mut self, handle: Handle) {
        either!(self, engine => engine.shutdown(handle))
    }

    fn close(&mut self, handle: Handle) {
        either!(self, engine => engine.close(handle))
    }

    #[inline]
    fn reap(&mut self, events: &mut Vec<TransportEvent<Self::Socket>>) {
        either!(self, engine => engine.reap(events))
    }
}

impl Handover for Engine {
    fn listen_on(&mut self, socket: Self::Socket) -> Result<Listener, TransportError> {
        either!(self, engine => engine.listen_on(socket))
    }

    fn share(&mut self, listener: Listener) -> Result<Self::Socket, TransportError> {
        either!(self, engine => engine.share(listener))
    }
}

impl Park for Engine {
    type Bell = Doorbell;

    #[inline]
    fn arm(&mut self) {
        either!(self, engine => engine.arm())
    }

    #[inline]
    fn park(&mut self, timeout: Option<Duration>) {
        either!(self, engine => engine.park(timeout))
    }

    fn bell(&self) -> Doorbell {
        either!(self, engine => engine.bell())
    }
}

impl Hosted for Engine {
    fn host(&mut self) -> Result<(), TransportError> {
        either!(self, engine => engine.host())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        either!(self, engine => engine.fd())
    }

    #[inline]
    fn rest(&mut self) -> bool {
        either!(self, engine => engine.rest())
    }

    #[inline]
    fn wake(&mut self) {
        either!(self, engine => engine.wake());
    }

    fn timeout(&mut self) -> Option<Duration> {
        either!(self, engine => engine.timeout())
    }
}

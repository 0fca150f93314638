//! What is between a connection and its sockets: nothing, or TLS.

#[cfg(feature = "tls")]
use std::sync::Arc;

use ringcall_core::{Batch, ByteLayer, Chunk, CloseReason, Memory, Plain};
#[cfg(feature = "tls")]
use ringcall_tls::{PeerIdentity, Tls, TlsClient, TlsServer, Workspace};

use super::ShardConfig;
use crate::client::Security;

/// The byte layer of a connection.
#[derive(Debug)]
pub(crate) enum Layer {
    Plain(Plain),
    #[cfg(feature = "tls")]
    Tls(Box<Tls>),
}

macro_rules! either {
    ($layer:expr, $inner:ident => $use:expr) => {
        match $layer {
            Layer::Plain($inner) => $use,
            #[cfg(feature = "tls")]
            Layer::Tls($inner) => $use,
        }
    };
}

/// Makes the layers of a shard's connections.
pub(crate) struct Layers {
    #[cfg(feature = "tls")]
    server: Option<TlsServer>,
    #[cfg(feature = "tls")]
    client: Option<TlsClient>,
    #[cfg(feature = "tls")]
    workspace: Workspace,
}

/// The layer of a connection could not be made; what is wrong is in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoLayer;

#[cfg(not(feature = "tls"))]
impl Layers {
    pub(crate) fn new(_: &ShardConfig, _: &Memory) -> Layers {
        Layers {}
    }

    pub(crate) fn accept(&self) -> Result<Layer, NoLayer> {
        Ok(Layer::Plain(Plain))
    }

    pub(crate) fn connect(&self, _: &Security) -> Result<Layer, NoLayer> {
        Ok(Layer::Plain(Plain))
    }
}

#[cfg(feature = "tls")]
impl Layers {
    pub(crate) fn new(config: &ShardConfig, memory: &Memory) -> Layers {
        Layers {
            server: config.server_tls.clone(),
            client: config.client_tls.clone(),
            workspace: Workspace::new(memory.pool()),
        }
    }

    /// For a connection that was accepted.
    pub(crate) fn accept(&self) -> Result<Layer, NoLayer> {
        let Some(server) = &self.server else { return Ok(Layer::Plain(Plain)) };
        Layer::of(Tls::server(server, &self.workspace))
    }

    /// For a connection that is opened.
    pub(crate) fn connect(&self, security: &Security) -> Result<Layer, NoLayer> {
        let client = security.tls.as_ref().or(self.client.as_ref());
        let Some(client) = client else { return Ok(Layer::Plain(Plain)) };
        Layer::of(Tls::client(client, &security.host, &self.workspace))
    }
}

#[cfg(feature = "tls")]
impl Layer {
    fn of(tls: Result<Tls, ringcall_tls::TlsConfigError>) -> Result<Layer, NoLayer> {
        tls.map(|tls| Layer::Tls(Box::new(tls))).map_err(|error| {
            log::error!("TLS cannot be used: {error}");
            NoLayer
        })
    }

    /// Who the other side has proved to be.
    pub(crate) fn peer(&self) -> Option<&Arc<PeerIdentity>> {
        match self {
            Layer::Plain(_) => None,
            Layer::Tls(tls) => tls.peer(),
        }
    }
}

impl ByteLayer for Layer {
    #[inline]
    fn open(&mut self, chunk: Chunk, plain: &mut dyn FnMut(Chunk)) -> Result<(), CloseReason> {
        either!(self, layer => layer.open(chunk, plain))
    }

    #[inline]
    fn seal(&mut self, batch: &mut Batch) -> Result<(), CloseReason> {
        either!(self, layer => layer.seal(batch))
    }

    #[inline]
    fn wants_seal(&self) -> bool {
        either!(self, layer => layer.wants_seal())
    }

    #[inline]
    fn is_ready(&self) -> bool {
        either!(self, layer => layer.is_ready())
    }

    #[inline]
    fn has_input_ended(&self) -> bool {
        either!(self, layer => layer.has_input_ended())
    }

    fn end_input(&mut self) -> Result<(), CloseReason> {
        either!(self, layer => layer.end_input())
    }

    fn end_output(&mut self) {
        either!(self, layer => layer.end_output())
    }

    #[inline]
    fn owes_goodbye(&self) -> bool {
        either!(self, layer => layer.owes_goodbye())
    }

    fn explain(&self, reason: CloseReason) -> CloseReason {
        either!(self, layer => layer.explain(reason))
    }

    #[inline]
    fn take_copied(&mut self) -> u64 {
        either!(self, layer => layer.take_copied())
    }

    #[inline]
    fn can_land(&self) -> bool {
        either!(self, layer => layer.can_land())
    }

    #[inline]
    fn can_file(&self) -> bool {
        either!(self, layer => layer.can_file())
    }
}

//! Connections that are recorded, see [`crate::record`].

use std::cell::RefCell;
use std::collections::HashMap;

use ringcall_core::record::Recorder;
use ringcall_core::{Address, CloseReason, Handle, Side};

use super::{Inner, ShardEndpoint};
use crate::record::{ConnectionRecord, ConnectionRecorder, is_error};

/// What a shard knows of the connections that it records.
pub(super) struct Records {
    recorder: ConnectionRecorder,
    known: RefCell<HashMap<Handle, Known>>,
}

#[derive(Clone)]
struct Known {
    number: u64,
    side: Side,
    peer: Option<Address>,
}

impl Known {
    fn record(self, recorder: &Recorder, reason: Option<CloseReason>) -> ConnectionRecord {
        let Known { number, side, peer } = self;
        let other = peer.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
        let end = reason.map_or_else(|| "it goes on".to_owned(), |reason| reason.to_string());
        let bytes = recorder.to_bytes(&format!("connection {number} with {other}: {end}"));
        ConnectionRecord { number, side, peer, reason, bytes }
    }
}

impl Records {
    pub(super) fn new(recorder: Option<ConnectionRecorder>) -> Option<Box<Records>> {
        recorder.map(|recorder| Box::new(Records { recorder, known: RefCell::default() }))
    }

    /// A connection is new.
    #[cold]
    pub(super) fn begin(
        &self,
        endpoint: &mut ShardEndpoint,
        handle: Handle,
        side: Side,
        peer: Option<Address>,
    ) {
        let Some((number, settings)) = self.recorder.choose(peer.as_ref()) else { return };
        let Some(connection) = endpoint.connection_mut(handle) else { return };
        let began = connection.record(settings);
        debug_assert!(began.is_ok(), "it is new");
        self.known.borrow_mut().insert(handle, Known { number, side, peer });
    }
}

impl Inner {
    /// A connection is over.
    #[cold]
    pub(super) fn end_record(&self, handle: Handle, reason: CloseReason) {
        let Some(records) = &self.records else { return };
        let Some(known) = records.known.borrow_mut().remove(&handle) else { return };
        let mut endpoint = self.endpoint.borrow_mut();
        let connection = endpoint.connection_mut(handle);
        let recorder = connection.and_then(|connection| connection.stop_recording());
        if let Some(recorder) = recorder.filter(|_| is_error(reason)) {
            records.recorder.ended(known.record(&recorder, Some(reason)));
        }
    }

    /// What is recorded of connections that go on.
    pub(crate) fn records(&self) -> Vec<ConnectionRecord> {
        let Some(records) = &self.records else { return Vec::new() };
        let (known, endpoint) = (records.known.borrow(), self.endpoint.borrow());
        let mut found: Vec<ConnectionRecord> = known
            .iter()
            .filter_map(|(handle, known)| {
                let recorder = endpoint.connection(*handle)?.recorder()?;
                Some(known.clone().record(recorder, None))
            })
            .collect();
        found.sort_unstable_by_key(|record| record.number);
        found
    }
}

//! What the two sides of a connection tell each other about themselves: codecs, and the table of methods.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringcall_codec_rkyv::FALLBACK_CODECS;
use ringcall_core::frame::{Hello, ReplyHeader, features, request_flags};
use ringcall_core::{
    Call, Channel as _, Codec, Config, Empty, Handle, Instant, Outgoing, Request, Status,
    StatusClass,
};

use super::{Inner, Ticket};
use crate::client::{ClientConnection, LocalClient};
use crate::serve::{BEGUN, KIND_FLAGS, MethodRows, PAGE, PAGE_NAME, Pages, Tie};

/// The codecs with names, and the table of methods, are there for every connection.
pub(super) fn spoken(config: Config) -> Config {
    config.codecs(FALLBACK_CODECS).control_methods()
}

/// The same for a connection by which these methods are called.
pub(super) fn offering(config: &Config, rows: &MethodRows) -> Rc<Config> {
    Rc::new(config.clone().codecs(rows.codecs()).table_digest(rows.digest()))
}

impl Inner {
    /// What the other side has said of itself.
    pub(crate) fn hello(&self, handle: Handle) -> Option<Hello> {
        self.endpoint.borrow().connection(handle)?.peer().copied()
    }

    /// A method that no service has.
    #[cold]
    pub(super) fn control(&self, handle: Handle, request: &mut Request) {
        if request.method == BEGUN {
            return self.hear_begun(handle, request);
        }
        if request.method != PAGE {
            return self.refuse(handle, request.id, Status::UNKNOWN_METHOD);
        }
        if self.is_guarded.get() && !self.may_call(handle, request, PAGE_NAME) {
            return;
        }
        if request.codec != Codec::RAW {
            return self.refuse(handle, request.id, Status::UNKNOWN_CODEC);
        }
        if request.compression != 0 {
            return self.refuse(handle, request.id, Status::UNSUPPORTED);
        }
        if request.flags & KIND_FLAGS != 0 {
            return self.refuse(handle, request.id, Status::BAD_REQUEST);
        }
        let rows = self.routers.borrow().rows(handle);
        match rows.page(&request.body) {
            Some(page) => {
                let header = ReplyHeader { codec: Codec::RAW, ..ReplyHeader::new(Status::OK) };
                self.answer_with(handle, request.id, header, &Bytes::from(page));
            }
            None => self.refuse(handle, request.id, Status::BAD_BODY),
        }
    }

    /// The other side begins with a tied call of this one.
    fn hear_begun(&self, handle: Handle, request: &Request) {
        // Only balanced channels tie calls.
        #[cfg(feature = "cluster")]
        if request.codec == Codec::RAW
            && let Ok(tie) = Tie::try_from(&*request.body)
        {
            crate::cluster::begun(tie);
        }
        self.answer_with(handle, request.id, ReplyHeader::new(Status::OK), &Empty);
    }

    /// A handler begins with a tied call: its caller may have made it elsewhere as well.
    #[cold]
    pub(crate) fn tell_begun(&self, handle: Handle, tie: Tie) {
        let answers = |hello: Hello| hello.features & features::CONTROL_METHODS != 0;
        if !self.hello(handle).is_some_and(answers) {
            return;
        }
        let tell = Call {
            method: BEGUN,
            in_signature: 0,
            out_signature: 0,
            deadline: Instant::FAR,
            codec: Codec::RAW,
            compression: 0,
            priority: 0,
            attempt: 0,
            flags: request_flags::ONE_WAY,
        };
        let (now, tie) = (self.now(), Bytes::copy_from_slice(&tie));
        // If it cannot be told now, the answer will say it.
        let _untold = self.endpoint.borrow_mut().call(now, handle, &tell, &tie, Ticket::Nobody);
    }

    /// Bodies went in a codec with names.
    #[cold]
    pub(crate) fn count_fallback(&self, handle: Handle, encoded: u64, decoded: u64) {
        if let Some(connection) = self.endpoint.borrow_mut().connection_mut(handle) {
            connection.count_fallback(encoded, decoded);
        }
    }

    /// Asks the other side of a new connection for its table of methods, if no other connection has heard it
    /// yet.
    pub(super) fn meet(self: &Rc<Self>, handle: Handle, connection: &Rc<ClientConnection>) {
        let Some(hello) = self.hello(handle) else { return };
        let Some(digest) = connection.skew().meet(&hello) else { return };
        let client = LocalClient::peer(self, Rc::clone(connection));
        let connection = Rc::clone(connection);
        self.spawn(async move {
            let table = ask_for_table(&client, digest).await;
            // There may be another connection by now, which has asked itself.
            if connection.handle() == handle {
                connection.skew().learn_table(table);
                connection.wake_waiting();
            }
        });
    }
}

/// How long each page may take. Calls that have to wait for it wait no longer than for themselves.
const PAGE_TIMEOUT: Duration = Duration::from_secs(2);

async fn ask_for_table(client: &LocalClient, digest: u64) -> Option<MethodRows> {
    let mut pages = Pages::new(digest);
    loop {
        let ask = Outgoing {
            method: PAGE,
            name: PAGE_NAME,
            in_signature: 0,
            out_signature: 0,
            codec: Codec::RAW,
            compression: 0,
            timeout: PAGE_TIMEOUT,
            priority: 0,
            attempt: 0,
            flags: 0,
            wait_for_ready: false,
        };
        let answer = client.call(ask, pages.next()).await.ok()?;
        let is_ok = answer.header.status.class() == StatusClass::Ok;
        if !is_ok || answer.header.codec != Codec::RAW {
            return None;
        }
        if let Some(table) = pages.take_page(&answer.body)? {
            return Some(table);
        }
    }
}

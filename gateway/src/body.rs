//! Bodies of answers: all at once, or lines as they come.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};

use crate::GatewayConfig;
use crate::answer::held;
use crate::streams::{Line, StreamingCall};
use crate::watch::Running;

/// The body of an answer: all of it, or, of a stream of the server, a line for each item as it comes. Dropping it gives the stream's call
/// up.
///
/// Streams need a runtime of tokio with its timer. A body that is not polled is a stream that is not read: the server waits.
pub struct GatewayBody(Kind);

enum Kind {
    Whole(Full<Bytes>),
    Lines(Box<Lines>),
}

impl GatewayBody {
    pub(crate) fn whole(bytes: Bytes) -> GatewayBody {
        GatewayBody(Kind::Whole(Full::new(bytes)))
    }

    pub(crate) fn lines(lines: Lines) -> GatewayBody {
        GatewayBody(Kind::Lines(Box::new(lines)))
    }
}

impl fmt::Debug for GatewayBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Whole(whole) => f.debug_tuple("GatewayBody").field(whole).finish(),
            Kind::Lines(_) => f.debug_struct("GatewayBody").finish_non_exhaustive(),
        }
    }
}

impl Body for GatewayBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.0 {
            Kind::Whole(whole) => Pin::new(whole).poll_frame(cx),
            Kind::Lines(lines) => lines.poll(cx).map(|line| Some(Ok(Frame::data(line?)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(whole) => whole.is_end_stream(),
            Kind::Lines(lines) => lines.call.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(whole) => whole.size_hint(),
            Kind::Lines(_) => SizeHint::default(),
        }
    }
}

/// The lines of a stream, with an empty one now and then.
pub(crate) struct Lines {
    /// None once its last line was given.
    call: Option<StreamingCall>,
    next_pulse: Pin<Box<Sleep>>,
    pulse: Duration,
    /// Its place, until all of its lines are gone.
    place: Arc<Option<OwnedSemaphorePermit>>,
    /// So that its connection is not an idle one, whatever is said there.
    running: Option<Running>,
}

impl Lines {
    pub(crate) fn new(call: StreamingCall, config: &GatewayConfig) -> Lines {
        let pulse = config.heartbeat;
        let next_pulse = Box::pin(sleep(pulse));
        Lines { call: Some(call), next_pulse, pulse, place: Arc::default(), running: None }
    }

    /// Whose they are, from now on.
    pub(crate) fn kept_by(
        self,
        permit: Option<OwnedSemaphorePermit>,
        running: Option<Running>,
    ) -> Lines {
        Lines { place: Arc::new(permit), running, ..self }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(call) = &mut self.call else { return Poll::Ready(None) };
        let line = match call.poll_line(cx) {
            Poll::Ready(Line::Item(line)) => line,
            Poll::Ready(Line::Last(line)) => {
                self.call = None;
                line
            }
            Poll::Pending => {
                ready!(self.next_pulse.as_mut().poll(cx));
                Bytes::from_static(b"\n")
            }
        };
        self.next_pulse.as_mut().reset(Instant::now() + self.pulse);
        let unread = self.running.as_ref().map(Running::unread);
        Poll::Ready(Some(held(line, (Arc::clone(&self.place), unread))))
    }
}

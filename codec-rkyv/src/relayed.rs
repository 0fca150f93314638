//! Messages that go on as they came.

use core::fmt;

use ringcall_buf::{Chunk, Frozen, Segment, SharedChunk};
use ringcall_core::{Codec, EncodeError, REFERENCE_BYTES_MIN, Writer};

use crate::{Archivable, Form, Invalid, Layout, Message, Shape, View};

/// A view as a message to send: its archive goes out as it is, from 16 KiB on without being copied. Whoever
/// receives it gets an ordinary view.
pub struct Relayed<T: Archivable, B: Frozen>(pub View<T, B>);

impl<T: Archivable, B: Frozen> fmt::Debug for Relayed<T, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relayed({} bytes)", self.0.as_bytes().len())
    }
}

impl<T, B> Message for Relayed<T, B>
where
    T: Archivable + Message,
    B: Frozen + Clone + Into<Segment> + From<Chunk> + From<SharedChunk>,
{
    type Received<R: Frozen> = View<T, R>;

    const CODEC: Codec = Codec::RKYV;

    fn describe(shape: &mut Shape) {
        <T as Message>::describe(shape);
    }

    fn layouts() -> Vec<Layout> {
        T::layouts()
    }

    fn encode(&self, out: &mut Writer) -> Result<(), EncodeError> {
        let body = self.0.body();
        match body.as_ref().len() >= REFERENCE_BYTES_MIN {
            true => Ok(out.attach(body.clone().into())?),
            false => Ok(out.put(body.as_ref())?),
        }
    }

    fn encode_as(&self, form: Form, out: &mut Writer) -> Result<(), EncodeError> {
        self.0.to_owned().encode_as(form, out)
    }

    fn receive<R: Frozen>(body: R) -> Result<View<T, R>, Invalid> {
        View::new(body)
    }

    fn into_owned(received: View<T, Chunk>) -> Relayed<T, B> {
        Relayed(again(B::from(received.body().clone())))
    }

    fn into_owned_shared(received: View<T, SharedChunk>) -> Relayed<T, B> {
        Relayed(again(B::from(received.body().clone())))
    }
}

fn again<T: Archivable, B: Frozen>(body: B) -> View<T, B> {
    View::new(body).expect("the same bytes were checked when they were received")
}

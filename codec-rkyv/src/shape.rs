//! What a type looks like in an archive, as a text and as a number.

use core::any::TypeId;
use core::fmt::Write as _;

use rkyv::{Archive, Archived};
use sha2::{Digest, Sha256};

use crate::{Message, WireType, WireWith, archive_format};

/// A description of types, in the order in which they are reached.
///
/// The text is specified in `docs/SHAPES.md`. Names are inside, so that two fields of the same type that
/// change places do not look the same; so are archived sizes and alignments, so that a changed layout
/// option does not go unnoticed.
#[derive(Debug, Default)]
pub struct Shape {
    text: String,
    /// User types that have been described, for back references.
    seen: Vec<TypeId>,
}

impl Shape {
    /// The text for a method's direction: the archive format, then the description of each part.
    fn of(parts: &[fn(&mut Shape)]) -> Shape {
        let mut shape = Shape::default();
        let _ = write!(shape.text, "rkyv-0.8/{}", archive_format().0);
        for part in parts {
            shape.text.push(';');
            part(&mut shape);
        }
        shape
    }

    /// The text so far.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first eight bytes of the text's SHA-256.
    #[must_use]
    pub fn signature(&self) -> u64 {
        let digest = Sha256::digest(self.text.as_bytes());
        digest.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }

    /// Appends a type, or a back reference to it.
    #[doc(hidden)]
    pub fn add<T: WireType>(&mut self) {
        T::describe(self);
        self.text.push(' ');
    }

    #[doc(hidden)]
    pub fn leaf<T: Archive>(&mut self, name: &str) {
        self.opaque::<Archived<T>>(name);
    }

    /// Appends a type of whose inside nothing more is said.
    pub fn opaque<A>(&mut self, name: &str) {
        let _ = write!(self.text, "{name}:{}:{}", size_of::<A>(), align_of::<A>());
    }

    #[doc(hidden)]
    pub fn container<T: Archive>(&mut self, name: &str, inner: impl FnOnce(&mut Shape)) {
        self.opaque::<Archived<T>>(name);
        self.text.push('(');
        inner(self);
        self.text.push(')');
    }

    /// A struct or enum: described where it is reached first, referred to by number after that.
    #[doc(hidden)]
    pub fn user<T: Archive + 'static>(
        &mut self,
        kind: &str,
        name: &str,
        inner: impl FnOnce(&mut Shape),
    ) {
        let id = TypeId::of::<T>();
        if let Some(at) = self.seen.iter().position(|&seen| seen == id) {
            let _ = write!(self.text, "^{at}");
            return;
        }
        self.seen.push(id);
        self.opaque::<Archived<T>>(&format!("{kind} {name}"));
        self.text.push('{');
        inner(self);
        self.text.push('}');
    }

    #[doc(hidden)]
    pub fn field<T: WireType>(&mut self, name: &str) {
        let _ = write!(self.text, "{name}=");
        self.add::<T>();
    }

    #[doc(hidden)]
    pub fn field_with<F, W: WireWith<F>>(&mut self, name: &str) {
        let _ = write!(self.text, "{name}=");
        W::describe(self);
        self.text.push(' ');
    }

    #[doc(hidden)]
    pub fn variant(&mut self, name: &str, number: usize, inner: impl FnOnce(&mut Shape)) {
        let _ = write!(self.text, "{name}#{number}(");
        inner(self);
        self.text.push(')');
    }

    #[doc(hidden)]
    pub fn raw(&mut self, text: &str) {
        self.text.push_str(text);
    }
}

/// The two signatures of a method, and the texts that they are digests of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signatures {
    /// Of the argument; 0 for bytes as they are.
    pub in_signature: u64,
    /// Of the reply and the error; 0 for bytes as they are and no error.
    pub out_signature: u64,
    /// What the in-signature stands for.
    pub in_text: String,
    /// What the out-signature stands for.
    pub out_text: String,
}

impl Signatures {
    /// Those of a method from `A` to `R` or the error `E`.
    #[must_use]
    pub fn of<A: Message, R: Message, E: Message>() -> Signatures {
        Signatures::with_items::<A, R, E>(None, None)
    }

    /// Those of a method that also takes or gives a stream of items, each of the type that is described.
    #[doc(hidden)]
    #[must_use]
    pub fn with_items<A: Message, R: Message, E: Message>(
        items_in: Option<fn(&mut Shape)>,
        items_out: Option<fn(&mut Shape)>,
    ) -> Signatures {
        let text = |parts: &[fn(&mut Shape)], items: Option<fn(&mut Shape)>| {
            let mut shape = Shape::of(parts);
            if let Some(items) = items {
                shape.text.push_str(";items ");
                items(&mut shape);
            }
            shape
        };
        let input = text(&[A::describe], items_in);
        let output = text(&[R::describe, E::describe], items_out);
        let is_raw = |is_raw: bool, shape: &Shape| if is_raw { 0 } else { shape.signature() };
        Signatures {
            in_signature: is_raw(A::IS_RAW && items_in.is_none(), &input),
            out_signature: is_raw(R::IS_RAW && E::IS_NEVER && items_out.is_none(), &output),
            in_text: input.text,
            out_text: output.text,
        }
    }
}

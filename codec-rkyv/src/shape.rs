//! What a type looks like in an archive, as a text and as a number.

use core::any::TypeId;
use core::fmt::Write as _;

use rkyv::{Archive, Archived};
use sha2::{Digest, Sha256};

use crate::{Form, Message, WireType, WireWith, archive_format};

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
    /// The text for a method's direction: the archive format, then the description of each part, then that
    /// of the items.
    fn of(parts: &[fn(&mut Shape)], items: Option<fn(&mut Shape)>) -> Shape {
        let mut shape = Shape::default();
        let _ = write!(shape.text, "rkyv-0.8/{}", archive_format().0);
        for part in parts {
            shape.text.push(';');
            part(&mut shape);
        }
        if let Some(items) = items {
            shape.text.push_str(";items ");
            items(&mut shape);
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

    /// Appends a type of whose inside nothing more is said. It must not need more alignment than a body has:
    ///
    /// ```compile_fail
    /// #[repr(align(32))]
    /// struct Wide;
    /// ringcall_codec_rkyv::Shape::default().opaque::<Wide>("wide");
    /// ```
    pub fn opaque<A>(&mut self, name: &str) {
        const {
            assert!(
                align_of::<A>() <= 16,
                "a type with an alignment of more than 16 cannot be archived: bodies lie at multiples of 16"
            );
        }
        let _ = write!(self.text, "{name}:{}:{}", size_of::<A>(), align_of::<A>());
    }

    #[doc(hidden)]
    pub fn container<T: Archive>(&mut self, name: &str, inner: impl FnOnce(&mut Shape)) {
        self.around::<Archived<T>>(name, inner);
    }

    /// The same of elements that a wrapper archives: a container of these, whose archived type is `A`.
    pub(crate) fn container_with<A, F, W: WireWith<F>>(&mut self, name: &str) {
        self.around::<A>(name, |shape| {
            W::describe(shape);
            shape.text.push(' ');
        });
    }

    fn around<A>(&mut self, name: &str, inner: impl FnOnce(&mut Shape)) {
        self.opaque::<A>(name);
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
    /// Of the argument and the items of the caller; 0 if both are bytes as they are.
    pub in_signature: u64,
    /// Of the reply or its items, and the error; 0 for bytes as they are and no error.
    pub out_signature: u64,
    /// What the in-signature stands for.
    pub in_text: String,
    /// What the out-signature stands for.
    pub out_text: String,
    /// In-signatures of layouts that the types had before and that are read as well.
    pub previously_in: Vec<Previously>,
    /// Out-signatures of layouts that the types had before and that are written as well.
    pub previously_out: Vec<Previously>,
}

/// A signature made of layouts of before, and which: of the argument and the items in, or of the reply, the
/// error and the items out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Previously {
    /// The signature.
    pub signature: u64,
    /// The form of each part.
    #[doc(hidden)]
    pub forms: [Form; 3],
}

impl Signatures {
    /// Those of a method from `A` to `R` or the error `E`.
    #[must_use]
    pub fn of<A: Message, R: Message, E: Message>() -> Signatures {
        Signatures::with_items::<A, R, E>(None, None)
    }

    /// Those of a method that also takes or gives a stream of items.
    #[doc(hidden)]
    #[must_use]
    pub fn with_items<A: Message, R: Message, E: Message>(
        items_in: Option<ItemShape>,
        items_out: Option<ItemShape>,
    ) -> Signatures {
        let input = Shape::of(&[A::describe], items_in.map(|items| items.describe));
        let output = Shape::of(&[R::describe, E::describe], items_out.map(|items| items.describe));
        let is_in_raw = A::IS_RAW && items_in.is_none_or(|items| items.is_raw);
        // A reply that is a stream has no body of its own.
        let is_reply_raw = items_out.map_or(R::IS_RAW, |items| items.is_raw);
        let signature = |is_raw: bool, shape: &Shape| if is_raw { 0 } else { shape.signature() };
        Signatures {
            in_signature: signature(is_in_raw, &input),
            out_signature: signature(is_reply_raw && E::IS_NEVER, &output),
            in_text: input.text,
            out_text: output.text,
            previously_in: previously(&[A::layouts], items_in, |_| true),
            previously_out: previously(&[R::layouts, E::layouts], items_out, |layout| {
                layout.has_encode
            }),
        }
    }
}

/// A layout of a type.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    form: Form,
    describe: fn(&mut Shape),
    has_encode: bool,
}

impl Layout {
    /// That of the present, and those of before.
    pub(crate) fn all_of<M: Message>() -> Vec<Layout> {
        let plain = Layout { form: Form::PLAIN, describe: M::describe, has_encode: true };
        let previous = M::previous().iter().enumerate().map(|(index, previous)| Layout {
            form: Form::of_previous(index),
            describe: previous.describe,
            has_encode: previous.encode.is_some(),
        });
        std::iter::once(plain).chain(previous).collect()
    }
}

/// How many combinations a direction of a method may have.
const COMBINATIONS_MAX: usize = 64;

/// Every choice of a layout a part, but for that of the present.
fn previously(
    parts: &[fn() -> Vec<Layout>],
    items: Option<ItemShape>,
    is_wanted: fn(&Layout) -> bool,
) -> Vec<Previously> {
    let mut choices = vec![Vec::new()];
    for part in parts.iter().copied().chain(items.map(|items| items.layouts)) {
        let layouts: Vec<Layout> = part().into_iter().filter(is_wanted).collect();
        let longer = choices.into_iter().flat_map(|choice: Vec<Layout>| {
            let longer = layouts.iter().map(move |layout| [&choice[..], &[*layout]].concat());
            longer.collect::<Vec<_>>()
        });
        choices = longer.take(COMBINATIONS_MAX).collect();
    }
    let others = choices.into_iter().skip(1).map(|choice| {
        let mut forms = [Form::PLAIN; 3];
        let (of_parts, of_items) = choice.split_at(parts.len());
        // Those of the items have the last place, whatever comes before them.
        for (form, layout) in forms.iter_mut().zip(of_parts) {
            *form = layout.form;
        }
        if let Some(layout) = of_items.first() {
            forms[2] = layout.form;
        }
        let describes: Vec<fn(&mut Shape)> =
            of_parts.iter().map(|layout| layout.describe).collect();
        let items = of_items.first().map(|layout| layout.describe);
        Previously { signature: Shape::of(&describes, items).signature(), forms }
    });
    others.collect()
}

/// What signatures have to know of the type of a stream's items.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct ItemShape {
    is_raw: bool,
    describe: fn(&mut Shape),
    layouts: fn() -> Vec<Layout>,
}

impl ItemShape {
    #[must_use]
    pub fn of<M: Message>() -> ItemShape {
        ItemShape { is_raw: M::IS_RAW, describe: M::describe, layouts: M::layouts }
    }
}

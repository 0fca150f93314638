//! Whether a request is for a method as it is here, and in which form its parts come and go.

use ringcall_codec_rkyv::{FALLBACK_CODECS, Form, Previously};
use ringcall_core::{Codec, Request, Status};

use super::MethodTable;

/// How the parts of an admitted call come and go.
pub(crate) struct Admitted {
    pub(super) out_signature: u64,
    pub(super) forms: Forms,
}

/// In which form each part of a call is.
// A word, and moved as one.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Forms {
    pub(super) argument: Form,
    pub(super) item_in: Form,
    /// Of the reply, the error and the items.
    pub(crate) out: [Form; 3],
    rest: [u8; 3],
}

impl Forms {
    /// All as the method has it.
    const PLAIN: Forms = Forms::new(Form::PLAIN, Form::PLAIN, [Form::PLAIN; 3]);

    const fn new(argument: Form, item_in: Form, out: [Form; 3]) -> Forms {
        Forms { argument, item_in, out, rest: [0; 3] }
    }
}

impl Admitted {
    /// All as the method has it.
    #[inline]
    pub(super) fn plain(out_signature: u64) -> Admitted {
        Admitted { out_signature, forms: Forms::PLAIN }
    }
}

impl MethodTable {
    /// For a caller that was built with other types, or without any. `reads` are the codecs of its HELLO.
    pub(super) fn admit_other(&self, request: &Request, reads: u64) -> Result<Admitted, Status> {
        let (argument, item_in) = self.forms_in(request)?;
        let (out_signature, out) = self.forms_out(request, reads)?;
        Ok(Admitted { out_signature, forms: Forms::new(argument, item_in, out) })
    }

    fn forms_in(&self, request: &Request) -> Result<(Form, Form), Status> {
        let signatures = self.signatures();
        let codec = self.argument_codec();
        if request.codec != codec {
            let is_readable = codec == Codec::RKYV && self.names_items(self.items_in());
            return match is_readable && is_fallback(request.codec) {
                // Each item says by itself what it is in.
                true => Ok((Form::of_codec(request.codec), Form::PLAIN)),
                false => Err(Status::UNKNOWN_CODEC),
            };
        }
        if request.in_signature == signatures.in_signature {
            return Ok((Form::PLAIN, Form::PLAIN));
        }
        if let Some(previously) = find(&signatures.previously_in, request.in_signature) {
            let [argument, _, item] = previously.forms;
            return Ok((argument, item));
        }
        // Bytes are bytes; the items are in a codec with names.
        let is_raw = codec == Codec::RAW && request.in_signature == 0;
        match is_raw && self.names_items(self.items_in()) {
            true => Ok((Form::PLAIN, Form::PLAIN)),
            false => Err(Status::SHAPE_MISMATCH),
        }
    }

    fn forms_out(&self, request: &Request, reads: u64) -> Result<(u64, [Form; 3]), Status> {
        let signatures = self.signatures();
        let out_signature = signatures.out_signature;
        let codecs = [self.reply().codec, self.error().codec];
        let is_named = codecs.iter().all(|codec| matches!(*codec, Codec::RKYV | Codec::RAW))
            && self.names_items(self.items_out());
        if request.codec == Codec::JSON && is_named {
            return Ok((out_signature, [Form::of_codec(Codec::JSON); 3]));
        }
        if request.out_signature == out_signature {
            return Ok((out_signature, [Form::PLAIN; 3]));
        }
        if let Some(previously) = find(&signatures.previously_out, request.out_signature) {
            return Ok((request.out_signature, previously.forms));
        }
        let reads_names = request.codec.has_names()
            || reads & (1 << Codec::MESSAGEPACK.0) != 0
            || self.is_one_way();
        match is_named && reads_names {
            true => Ok((out_signature, [Form::of_codec(Codec::MESSAGEPACK); 3])),
            false => Err(Status::SHAPE_MISMATCH),
        }
    }

    /// Whether items, if there are any, can go by names.
    fn names_items(&self, items: Option<&super::ErasedMessage>) -> bool {
        items.is_none_or(|items| matches!(items.codec, Codec::RKYV | Codec::RAW))
    }
}

fn find(previously: &[Previously], signature: u64) -> Option<&Previously> {
    previously.iter().find(|previously| previously.signature == signature)
}

/// Whether this build reads a codec for every typed message.
fn is_fallback(codec: Codec) -> bool {
    codec.has_names() && FALLBACK_CODECS & (1 << codec.0) != 0
}

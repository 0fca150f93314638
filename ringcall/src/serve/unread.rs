//! What was not read of a call: its caller is told that it was refused, and the log why. Not what was in it, see `tests/logs.rs`.

use std::net::SocketAddr;

use ringcall_codec_rkyv::{Form, take_reason};
use ringcall_core::{Codec, Handle, Instant, Status};

use super::MethodTable;
use super::incoming::Facts;
use crate::shard::{Inner, Remote};

/// A call is refused before its handler has begun: if that is for its argument, the log says so.
#[cold]
pub(super) fn refused(
    remote: &Remote,
    now: Instant,
    facts: &Facts,
    caller: Option<SocketAddr>,
    status: Status,
) {
    if status == Status::BAD_BODY {
        let reason = reason(facts.forms.argument, facts.table.argument_codec());
        tell(remote, now, ("the argument", facts.table), caller, &reason);
    }
}

/// An item of a caller is not of its type.
#[cold]
pub(super) fn refused_item(
    shard: &Inner,
    handle: Handle,
    table: &'static MethodTable,
    form: Form,
    codec: Codec,
) {
    let caller = shard.peer_address(handle);
    tell(&shard.remote, shard.now(), ("an item", table), caller, &reason(form, codec));
}

/// Why a body in this form, of a type in this codec, was not read.
fn reason(form: Form, codec: Codec) -> String {
    match (form.codec(), codec) {
        (Some(named), _) => {
            let why = take_reason();
            format!("{}: {}", name(named), why.as_deref().unwrap_or("it is not of the type"))
        }
        (None, _) if form != Form::PLAIN => {
            "it is no valid archive of the type as it was before".to_owned()
        }
        (None, Codec::RKYV) => "it is no valid archive of the type".to_owned(),
        (None, codec) => format!("{}: it is not of the type", name(codec)),
    }
}

fn name(codec: Codec) -> String {
    match codec {
        Codec::RAW => "bytes as they are".to_owned(),
        Codec::MESSAGEPACK => "MessagePack".to_owned(),
        Codec::JSON => "JSON".to_owned(),
        Codec(number) => format!("codec {number}"),
    }
}

fn tell(
    remote: &Remote,
    now: Instant,
    (what, table): (&str, &'static MethodTable),
    caller: Option<SocketAddr>,
    reason: &str,
) {
    let Some(refused) = remote.unread_lines.may_write(now) else { return };
    let caller = caller.map_or_else(|| "a local caller".to_owned(), |caller| caller.to_string());
    let others = match refused - 1 {
        0 => String::new(),
        others => format!(" ({others} more since the last line)"),
    };
    let method = table.full_name();
    log::warn!(
        target: "ringcall::unread",
        "{what} of a call of {method} from {caller} was refused: {reason}{others}",
    );
}

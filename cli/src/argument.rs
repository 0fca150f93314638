//! The argument of a call, and what goes with it.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use ringcall::{Bytes, CallOptions, Channel, Codec, UntypedCall};
use ringcall_generic::Method;
use serde_json::Value;

use crate::args::CallArgs;
use crate::connect::MESSAGE_BYTES_MAX;
use crate::exit::Problem;
use crate::screen::Screen;

/// The bytes that were given, from wherever they were to be taken; `None` if nothing was said.
pub(crate) fn bytes(args: &CallArgs, screen: &mut Screen<'_>) -> Result<Option<Vec<u8>>, Problem> {
    let Some(argument) = &args.argument else { return Ok(None) };
    let bytes = match argument.as_str() {
        "-" => read(screen.stdin(), "standard input")?,
        argument => match argument.strip_prefix('@') {
            Some(path) => read_file(Path::new(path))?,
            None => argument.as_bytes().to_vec(),
        },
    };
    Ok(Some(bytes))
}

/// The argument as a value; that of a method without one need not be given.
pub(crate) fn value(method: &Method, bytes: Option<&[u8]>) -> Result<Value, Problem> {
    match bytes {
        Some(bytes) => serde_json::from_slice(bytes)
            .map_err(|error| Problem::misused(format_args!("the argument is no JSON: {error}"))),
        None if method.argument().is_leaf("unit") => Ok(Value::Null),
        None => Err(Problem::misused(format_args!(
            "{} takes an argument, such as {}",
            method.full_name(),
            crate::text::quoted(&method.example().to_string()),
        ))),
    }
}

/// What there is in a file, if it is not too much for a message.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, Problem> {
    let name = path.display().to_string();
    let mut file = File::open(path)
        .map_err(|error| Problem::misused(format!("cannot read {name}: {error}")))?;
    read(&mut file, &name)
}

fn read(from: &mut dyn Read, name: &str) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let read = from.take(MESSAGE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Problem::misused(format_args!("cannot read {name}: {error}")))?;
    if bytes.len() > MESSAGE_BYTES_MAX {
        let mib = MESSAGE_BYTES_MAX >> 20;
        return Err(Problem::misused(format_args!("{name} is longer than a message, {mib} MiB")));
    }
    Ok(bytes)
}

/// What goes with a call beside its argument.
#[derive(Clone, Debug)]
pub(crate) struct Beside {
    deadline: Option<Duration>,
    metadata: Vec<(String, String)>,
    group: Option<String>,
    pub(crate) idempotency_key: Option<String>,
}

impl Beside {
    pub(crate) fn new(args: &CallArgs) -> Result<Beside, Problem> {
        let CallArgs { deadline, metadata, group, .. } = args;
        for (key, value) in metadata {
            let _ = CallOptions::new().try_metadata(key, value).map_err(Problem::misused)?;
        }
        Ok(Beside {
            deadline: *deadline,
            metadata: metadata.clone(),
            group: group.clone(),
            idempotency_key: None,
        })
    }

    pub(crate) fn put_on<'a, C: Channel>(
        &self,
        mut call: UntypedCall<'a, C>,
    ) -> UntypedCall<'a, C> {
        if let Some(deadline) = self.deadline {
            call = call.deadline(deadline);
        }
        for (key, value) in &self.metadata {
            call = call.metadata(key, value);
        }
        if let Some(group) = &self.group {
            call = call.group(group);
        }
        match &self.idempotency_key {
            Some(key) => call.idempotency_key(key),
            None => call,
        }
    }
}

/// A call that can be made again and again, whose answers nobody reads as values.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) method: String,
    codec: Codec,
    body: Bytes,
    beside: Beside,
    /// What the method says, if it was asked.
    deadline: Option<Duration>,
    is_idempotent: bool,
    pub(crate) is_one_way: bool,
}

impl Prepared {
    /// Of bytes as they are, for a method of which nothing is known.
    pub(crate) fn raw(args: &CallArgs, beside: Beside, body: Option<Vec<u8>>) -> Prepared {
        Prepared {
            method: args.method.clone(),
            codec: args.codec.into(),
            body: body.unwrap_or_default().into(),
            beside,
            deadline: None,
            is_idempotent: false,
            is_one_way: false,
        }
    }

    /// Of an argument that is one of the method's.
    pub(crate) fn of(method: &Method, args: &CallArgs, beside: Beside, body: Vec<u8>) -> Prepared {
        Prepared {
            codec: method.argument_codec(),
            deadline: method.deadline(),
            is_idempotent: method.is_idempotent(),
            is_one_way: method.is_one_way(),
            ..Prepared::raw(args, beside, Some(body))
        }
    }

    /// The call, ready to be made.
    pub(crate) fn call<'a, C: Channel>(
        &self,
        channel: &'a C,
    ) -> Result<UntypedCall<'a, C>, Problem> {
        let call = UntypedCall::new(channel, &self.method, self.codec, self.body.clone());
        let mut call = call.map_err(Problem::misused)?;
        if let Some(deadline) = self.deadline {
            call = call.deadline(deadline);
        }
        if self.is_idempotent {
            call = call.idempotent();
        }
        if self.is_one_way {
            call = call.one_way();
        }
        Ok(self.beside.put_on(call))
    }
}

//! Whom calls go to: one server, or the instances of a service that a registry knows.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use ringcall::cluster::Clients;
use ringcall::{
    Answer, BlockOn as _, Body, Cause, Channel, Failure, LocalClient, Outgoing, Payload,
    ShardConfig, SharedBody,
};
use ringcall_registry::{RegistryChannel, RegistryError, balanced};

use crate::args::ServerArgs;
use crate::exit::{Problem, told};

/// How long an instance is waited for, unless `--connect-timeout` says it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is written before the nodes of a registry: `registry:NODE[,NODE…]/SERVICE`.
const REGISTRY: &str = "registry:";

/// The nodes and the service, if that is what is written: a server of that name has no `/` behind its port.
pub(crate) fn in_registry(address: &str) -> Option<(&str, &str)> {
    address.strip_prefix(REGISTRY)?.rsplit_once('/')
}

/// One server, or a service's instances.
#[derive(Clone, Debug)]
pub(crate) enum Reached {
    One(LocalClient),
    Fleet(RegistryChannel),
}

/// Finds the instances of a service, and waits until there is a connection to one.
pub(crate) fn fleet(
    args: &ServerArgs,
    (nodes, service): (&str, &str),
    registry: ShardConfig,
    clients: Clients,
) -> Result<Reached, Problem> {
    if service.is_empty() {
        return Err(Problem::misused(format_args!(
            "{}: behind the `/` belongs the service whose instances the registry knows",
            args.address
        )));
    }
    let outage = Arc::new(Mutex::new(None));
    let told_of = Arc::clone(&outage);
    let channel = balanced(nodes.split(','), service).clients(clients).registry(registry);
    let channel = channel.watch(move |watch| {
        watch.on_alarm(move |alarm| {
            *told_of.lock().unwrap_or_else(PoisonError::into_inner) = Some(alarm.to_string());
        })
    });
    let channel = channel.start().map_err(|error| match error {
        RegistryError::Start(_) | RegistryError::Clients(_) => {
            Problem::NotConnected(error.to_string())
        }
        error => Problem::misused(error),
    })?;
    let patience = args.connect_timeout.unwrap_or(PATIENCE);
    let ready = channel.block_on(channel.ready().within(patience));
    ready.map(|()| Reached::Fleet(channel)).map_err(|failure| {
        let outage = outage.lock().unwrap_or_else(PoisonError::into_inner).take();
        Problem::NotConnected(match (failure.cause, outage) {
            (Cause::NoInstance { .. }, Some(outage)) => {
                format!("no instance of {service} is known from {nodes}: {outage}")
            }
            (Cause::NoInstance { .. }, None) => {
                format!("the registry at {nodes} has no instance of {service}")
            }
            _ => format!("cannot connect to an instance of {service}: {}", told(&failure)),
        })
    })
}

impl Channel for Reached {
    type Body = Body;
    type Pending<'a, P>
        = ReachedCall<'a, P>
    where
        P: Payload + Clone + 'a;

    fn call<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> ReachedCall<'a, P> {
        match self {
            Reached::One(client) => ReachedCall::One { call: client.call(call, payload) },
            Reached::Fleet(channel) => {
                ReachedCall::Fleet { call: Box::pin(channel.call(call, payload)) }
            }
        }
    }
}

pin_project! {
    /// A call under way.
    #[project = Projected]
    pub(crate) enum ReachedCall<'a, P>
    where
        P: Payload,
        P: Clone,
        P: 'a,
    {
        One {
            #[pin]
            call: <LocalClient as Channel>::Pending<'a, P>,
        },
        Fleet {
            call: Pin<Box<<RegistryChannel as Channel>::Pending<'a, P>>>,
        },
    }
}

impl<P: Payload + Clone> Future for ReachedCall<'_, P> {
    type Output = Result<Answer<Body>, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projected::One { call } => call.poll(cx),
            Projected::Fleet { call } => call.as_mut().poll(cx).map(|answer| answer.map(own)),
        }
    }
}

/// The same answer, for this thread.
fn own(answer: Answer<SharedBody>) -> Answer<Body> {
    let Answer { header, body, attached, extensions } = answer;
    Answer { header, body: body.into(), attached, extensions: extensions.into() }
}

impl<P: Payload + Clone> fmt::Debug for ReachedCall<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReachedCall").finish_non_exhaustive()
    }
}

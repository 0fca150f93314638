//! Names are asked for by `hickory-resolver`, on a thread of its own with a small runtime.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;
use std::{fmt, io, thread};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use super::{DnsAnswer, DnsFailure, DnsKind, DnsQuery, DnsRecord, Resolve};

/// Queries under way at a time: one service may name a thousand hosts.
const QUERIES_MAX: usize = 16;
/// However many name servers there are, and however often each is asked.
const PATIENCE: Duration = Duration::from_secs(20);

type Said = (DnsQuery, Result<DnsAnswer, DnsFailure>);

/// Asks name servers, on a thread of its own, which ends when this is dropped.
///
/// Nothing is cached here: a [`DnsSource`](super::DnsSource) asks when an answer is over. Neither DNSSEC nor encrypted
/// ways are used; who needs them asks a name server on its own machine that does.
pub struct HickoryResolver {
    queries: UnboundedSender<DnsQuery>,
    answers: Receiver<Said>,
    /// Those that have no answer yet.
    open: Vec<DnsQuery>,
}

impl HickoryResolver {
    /// Asks as this machine is set up to: `/etc/resolv.conf`, with its search list, and `/etc/hosts`.
    ///
    /// # Errors
    /// When that cannot be read, or the thread cannot be started.
    pub fn system() -> io::Result<HickoryResolver> {
        let (config, options) = hickory_resolver::system_conf::read_system_conf().map_err(bad)?;
        HickoryResolver::start(config, options)
    }

    /// Asks these name servers, in order of how fast they are, and nothing else.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn servers(servers: impl IntoIterator<Item = SocketAddr>) -> io::Result<HickoryResolver> {
        let server = |address: SocketAddr| {
            let at_port = |mut connection: ConnectionConfig| {
                connection.port = address.port();
                connection
            };
            let ways = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(at_port);
            NameServerConfig::new(address.ip(), true, ways.into())
        };
        let servers = servers.into_iter().map(server).collect();
        let config = ResolverConfig::from_name_servers(servers);
        let mut options = ResolverOpts::default();
        options.use_hosts_file = hickory_resolver::config::ResolveHosts::Never;
        HickoryResolver::start(config, options)
    }

    fn start(config: ResolverConfig, mut options: ResolverOpts) -> io::Result<HickoryResolver> {
        options.cache_size = 0;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let provider = TokioRuntimeProvider::default();
        let resolver = TokioResolver::builder_with_config(config, provider).with_options(options);
        let resolver = resolver.build().map_err(bad)?;
        let (queries, to_ask) = unbounded_channel();
        let (said, answers) = channel();
        thread::Builder::new().name("ringcall-dns".into()).spawn(move || {
            // What is under way when nobody asks any more is given up with the runtime.
            runtime.block_on(ask_all(resolver, to_ask, said));
        })?;
        Ok(HickoryResolver { queries, answers, open: Vec::new() })
    }
}

impl Resolve for HickoryResolver {
    fn ask(&mut self, query: DnsQuery) {
        // If the thread is gone, that is seen when its answers are asked for.
        let _gone = self.queries.send(query.clone());
        self.open.push(query);
    }

    fn poll_answer(&mut self) -> Option<Said> {
        match self.answers.try_recv() {
            Ok((query, answer)) => {
                self.open.retain(|open| *open != query);
                Some((query, answer))
            }
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                let reason = "the thread that asks has ended".to_owned();
                self.open.pop().map(|query| (query, Err(DnsFailure::Failed(reason))))
            }
        }
    }
}

impl fmt::Debug for HickoryResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HickoryResolver").field("open", &self.open).finish_non_exhaustive()
    }
}

async fn ask_all(
    resolver: TokioResolver,
    mut queries: UnboundedReceiver<DnsQuery>,
    said: Sender<Said>,
) {
    let resolver = Arc::new(resolver);
    let room = Arc::new(Semaphore::new(QUERIES_MAX));
    while let Some(query) = queries.recv().await {
        // It is never closed.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (resolver, said) = (Arc::clone(&resolver), said.clone());
        tokio::spawn(async move {
            let answer = ask(&resolver, &query).await;
            let _nobody_asks_any_more = said.send((query, answer));
            drop(permit);
        });
    }
}

async fn ask(resolver: &TokioResolver, query: &DnsQuery) -> Result<DnsAnswer, DnsFailure> {
    let kind = match query.kind {
        DnsKind::A => RecordType::A,
        DnsKind::Aaaa => RecordType::AAAA,
        DnsKind::Srv => RecordType::SRV,
    };
    let answer = timeout(PATIENCE, resolver.lookup(&query.name[..], kind)).await;
    let found = answer.unwrap_or(Err(NetError::Timeout)).map_err(failure)?;
    // An alias on the way holds no longer than what it leads to.
    let ttl = found.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
    let records = found.answers().iter().filter_map(|it| record(it, kind)).collect();
    Ok(DnsAnswer { records, ttl: Duration::from_secs(ttl.into()) })
}

fn record(record: &Record, kind: RecordType) -> Option<DnsRecord> {
    match &record.data {
        RData::A(address) if kind == RecordType::A => Some(DnsRecord::Address(address.0.into())),
        RData::AAAA(address) if kind == RecordType::AAAA => {
            Some(DnsRecord::Address(address.0.into()))
        }
        RData::SRV(srv) => Some(DnsRecord::Service {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            host: srv.target.to_string(),
        }),
        _ => None,
    }
}

fn failure(error: NetError) -> DnsFailure {
    match &error {
        NetError::Dns(DnsError::NoRecordsFound(none))
            if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
        {
            DnsFailure::NoRecords
        }
        _ => DnsFailure::Failed(error.to_string()),
    }
}

fn bad(error: NetError) -> io::Error {
    io::Error::other(error.to_string())
}

//! The other nodes, as far as one hears them: each tells all that it knows, and then what it is told.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use parking_lot::Mutex;
use ringcall::cluster::{Clock, Instant};
use ringcall::{LocalClient, MachineClock, Shard, ShardConfig};

use crate::addresses::Addresses;
use crate::stamp::Ahead;
use crate::thread::{OwnThread, Stop, together};

/// How often a node looks at the time.
const TICK: Duration = Duration::from_millis(250);
/// A node that has not looked for so long has stood still.
pub(crate) const STOOD_STILL: Duration = Duration::from_secs(2);
/// How often other nodes are told that they have heard all.
pub(crate) const UP_TO_DATE: Duration = Duration::from_secs(1);
/// How many nodes may listen to one.
pub(crate) const LISTENERS_MAX: usize = 32;
/// An address that leads to this node is asked again, since it may be a name that leads elsewhere later.
const ONESELF_AGAIN: Duration = Duration::from_secs(30);

/// What was of a time too far ahead is heard again, since it may be this node's clock that was wrong, and time passes.
const AHEAD_AGAIN: Duration = Duration::from_secs(60);

/// A node that listens to others.
pub(crate) trait Listens: Clone + 'static {
    /// What it hears of, for logs.
    const WHAT: &'static str;
    /// What another one tells.
    type Said;
    type News;

    /// By which it knows that it listens to itself.
    fn id(&self) -> u64;
    fn peers(&self) -> &Peers;
    /// Asks a node to tell what it knows.
    async fn listen(&self, client: LocalClient) -> Result<Self::Said, String>;
    /// What it says next; `None` when it has ended.
    async fn next(said: &mut Self::Said) -> Option<Result<Heard<Self::News>, String>>;
    async fn take(&self, news: Self::News) -> Result<(), Ahead>;
    /// Some time has passed.
    fn tick(&self);
}

/// What a node says to those who listen.
pub(crate) enum Heard<N> {
    /// Who it is, first of all.
    Node(u64),
    /// It has said all that it knows.
    UpToDate,
    News(N),
}

/// What is known of the other nodes.
#[derive(Debug)]
pub(crate) struct Peers {
    addresses: Vec<String>,
    /// Of each address.
    heard: Mutex<Vec<Peer>>,
    /// When this node began to listen.
    started: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    /// When it has said last that it has said everything.
    up_to_date: Option<Instant>,
    /// When it has said so first since it can be heard.
    since: Option<Instant>,
    is_oneself: bool,
}

/// What came of listening to another node.
enum End {
    /// It is this one.
    Oneself,
    /// It was heard, or not, until this happened.
    Until(String),
    /// It is to tell all of it once more.
    Again,
}

impl Peers {
    pub(crate) fn new(addresses: Vec<String>) -> Peers {
        let heard = Mutex::new(vec![Peer::default(); addresses.len()]);
        Peers { addresses, heard, started: MachineClock.now() }
    }

    /// How far all other nodes have told what they know.
    pub(crate) fn up_to_date(&self) -> Instant {
        let heard = self.heard.lock();
        let others = heard.iter().filter(|peer| !peer.is_oneself);
        others.map(|peer| peer.up_to_date.unwrap_or(Instant::ZERO)).min().unwrap_or(Instant::FAR)
    }

    /// Since when all other nodes have been heard without a break; [`Instant::FAR`] if one is not.
    pub(crate) fn heard_since(&self) -> Instant {
        let heard = self.heard.lock();
        let others = heard.iter().filter(|peer| !peer.is_oneself);
        others.map(|peer| peer.since.unwrap_or(Instant::FAR)).max().unwrap_or(self.started)
    }

    /// How many other nodes there are, as far as it is known which address is this one's.
    pub(crate) fn others(&self) -> usize {
        self.heard.lock().iter().filter(|peer| !peer.is_oneself).count()
    }

    /// This process stood still, or its clock has jumped: in that time nobody was heard.
    pub(crate) fn stood_still(&self, now: Instant) {
        for peer in self.heard.lock().iter_mut() {
            peer.since = peer.since.map(|_| now);
        }
    }

    /// Whether this node has just started, and has not heard yet what the others know.
    pub(crate) fn is_starting(&self, settle: Duration) -> bool {
        let is_new = MachineClock.now().since(self.started) < settle;
        is_new && self.up_to_date() == Instant::ZERO
    }

    fn change(&self, peer: usize, change: impl FnOnce(&mut Peer)) {
        change(&mut self.heard.lock()[peer]);
    }
}

/// What a node does all the time: it listens to all others, and looks at the time.
pub(crate) async fn tend<L: Listens>(node: L, shard: Shard) {
    let ticks = async {
        loop {
            shard.sleep(TICK).await;
            node.tick();
        }
    };
    let mut all: Vec<Pin<Box<dyn Future<Output = ()>>>> = vec![Box::pin(ticks)];
    for peer in 0..node.peers().addresses.len() {
        all.push(Box::pin(listen_to(&node, &shard, peer)));
    }
    together(all).await;
}

async fn listen_to<L: Listens>(node: &L, shard: &Shard, peer: usize) {
    let address = &node.peers().addresses[peer];
    let mut addresses = Addresses::new([address]);
    loop {
        let begun = MachineClock.now();
        let end = listen_once(node, shard, peer).await;
        if !matches!(end, End::Again) {
            node.peers().change(peer, |it| {
                it.since = None;
                it.is_oneself = matches!(end, End::Oneself);
            });
        }
        let again = match end {
            End::Again => None,
            End::Oneself => Some(ONESELF_AGAIN),
            End::Until(reason) => {
                log::warn!("hears of no {} from the node at {address}: {reason}", L::WHAT);
                addresses.ended(MachineClock.now().since(begun))
            }
        };
        if let Some(again) = again {
            shard.sleep(again).await;
        }
    }
}

async fn listen_once<L: Listens>(node: &L, shard: &Shard, peer: usize) -> End {
    let address = node.peers().addresses[peer].as_str();
    let client = match shard.connect(address).await {
        Ok(client) => client,
        Err(failure) => return End::Until(failure.to_string()),
    };
    let mut said = match node.listen(client).await {
        Ok(said) => said,
        Err(reason) => return End::Until(reason),
    };
    let mut ahead = None;
    while let Some(item) = L::next(&mut said).await {
        match item {
            Err(reason) => return End::Until(reason),
            Ok(Heard::Node(id)) if id == node.id() => return End::Oneself,
            Ok(Heard::Node(_)) => log::info!("hears of {} from the node at {address}", L::WHAT),
            Ok(Heard::UpToDate) => {
                let now = MachineClock.now();
                node.peers().change(peer, |it| {
                    it.up_to_date = Some(now);
                    it.since.get_or_insert(now);
                });
                if ahead.is_some_and(|ahead| now.since(ahead) >= AHEAD_AGAIN) {
                    return End::Again;
                }
            }
            Ok(Heard::News(news)) => {
                if node.take(news).await == Err(Ahead) && ahead.is_none() {
                    ahead = Some(MachineClock.now());
                    log::error!(
                        "the node at {address} says something of a time more than a day ahead, which does \
                         not count: a clock is wrong"
                    );
                }
            }
        }
    }
    End::Until("it has ended".to_owned())
}

/// Tends a node until it is dropped, see [`Node::start`](crate::Node::start) and [`Centre::start`](crate::Centre::start).
#[derive(Debug)]
#[must_use = "dropping it ends it"]
pub struct Tending(#[expect(dead_code, reason = "dropping it ends it")] OwnThread);

impl Tending {
    pub(crate) fn start<L: Listens + Send>(
        name: &str,
        config: ShardConfig,
        node: L,
    ) -> io::Result<Tending> {
        let tend = async move |shard: Shard, stop: Stop| {
            stop.unless(tend(node, shard)).await;
        };
        OwnThread::start(name, config, tend).map(Tending)
    }
}

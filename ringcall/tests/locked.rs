//! Where little memory may be locked, which rings count as: as an ordinary user finds it. Alone in its
//! process, because limits and rights are the process's.
#![allow(clippy::print_stderr, reason = "what is skipped says why")]

use ringcall::{Bytes, Shard, ShardConfig, TransportChoice, transport_fallbacks};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

#[ringcall::service]
trait Mirror {
    async fn reflect(&self, body: Bytes) -> Bytes;
}

struct Glass;

impl Mirror for Glass {
    async fn reflect(&self, body: Bytes) -> Bytes {
        body
    }
}

/// Gives up the right to lock as much as one likes.
fn become_ordinary() {
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, sets).unwrap();
}

fn limit_locked(kib: u64) {
    let limit = Rlimit { current: Some(kib << 10), ..getrlimit(Resource::Memlock) };
    setrlimit(Resource::Memlock, limit).unwrap();
}

fn shard(choice: TransportChoice) -> Shard {
    let mut config = ShardConfig::default();
    config.transport = choice;
    Shard::new(config).unwrap()
}

/// A shard that calls itself.
fn serves(shard: &Shard) {
    shard.serve(Glass.into_mirror()).unwrap();
    let address = shard.listen("127.0.0.1:0").unwrap();
    shard.block_on(async {
        let mirror = MirrorClient::new(shard.connect(address).await.unwrap());
        for len in [0, 100, 70_000, 3 << 20] {
            let body: Bytes = (0..len).map(|i| (i % 251) as u8).collect();
            assert!(mirror.reflect(&body).await.unwrap().as_ref() == body, "{len} bytes");
        }
    });
}

#[test]
fn e11_with_little_memory_to_lock_the_ring_is_smaller_and_with_none_epoll_serves() {
    if std::env::var_os("RINGCALL_TRANSPORT").is_some() {
        return; // It has been decided otherwise.
    }
    let usual = shard(TransportChoice::Auto).transport().clone();
    if usual.name != "uring" || usual.reason.contains("ulimit") {
        assert!(std::env::var_os("RINGCALL_REQUIRE_URING").is_none(), "{usual}");
        return eprintln!("skipped: {usual}");
    }
    become_ordinary();

    limit_locked(0);
    let none = shard(TransportChoice::Auto);
    assert_eq!(none.transport().name, "epoll");
    assert!(none.transport().reason.contains("`ulimit -l`"), "{}", none.transport());
    assert_eq!(transport_fallbacks(), 1);
    serves(&none);

    // Other processes of this user may have locked something, too: so much that a small ring just fits.
    let little = (28..=8192).step_by(28).find_map(|kib| {
        limit_locked(kib);
        let shard = shard(TransportChoice::Auto);
        (shard.transport().name == "uring").then_some(shard)
    });
    let little = little.expect("8 MiB are enough");
    assert!(little.transport().reason.contains("a small ring"), "{}", little.transport());
    assert!(little.transport().reason.contains("`ulimit -l`"), "{}", little.transport());
    serves(&little);
}

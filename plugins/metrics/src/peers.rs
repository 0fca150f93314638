//! Which peers are told apart.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use ringcall::Address;
use ringcall::observe::{Call, Role};

use crate::OTHER;
use crate::series::probe;

/// The key of those that have no address, or are not told apart at all.
const NOBODY: u64 = 0;
/// The key of all for which there was no room. Those of peers are odd.
const OTHERS: u64 = 2;

/// The first peers that call or are called, as long as there is room where they are looked for. Each is put down
/// once and stays, so that looking one up writes nothing.
pub(crate) struct Peers {
    slots: Box<[OnceLock<Peer>]>,
    nobody: Arc<str>,
    others: Arc<str>,
}

struct Peer {
    key: u64,
    name: Arc<str>,
}

impl Peers {
    pub(crate) fn new(max: usize) -> Peers {
        let slots = std::iter::repeat_with(OnceLock::new).take(max).collect();
        Peers { slots, nobody: Arc::from(""), others: Arc::from(OTHER) }
    }

    /// What tells the peer of a call from others, if there is room for it.
    pub(crate) fn key(&self, call: &Call<'_>) -> u64 {
        call.peer.filter(|_| !self.slots.is_empty()).map_or(NOBODY, |peer| hash(call.role, peer))
    }

    /// The key under which the peer of a call is counted, and its name.
    pub(crate) fn name(&self, key: u64, role: Role, peer: Option<&Address>) -> (u64, &Arc<str>) {
        let Some(peer) = peer.filter(|_| key != NOBODY) else { return (NOBODY, &self.nobody) };
        // Calls of those for which there is no room come here each time.
        for slot in probe(&self.slots, key) {
            let known = slot.get_or_init(|| Peer { key, name: name_of(role, peer) });
            if known.key == key {
                return (key, &known.name);
            }
        }
        (OTHERS, &self.others)
    }
}

fn name_of(role: Role, peer: &Address) -> Arc<str> {
    match peer {
        Address::Tcp(address) if role == Role::Server => address.ip().to_string().into(),
        address => address.to_string().into(),
    }
}

/// Tells peers apart. That two of thousands are the same is as good as impossible, and harmless.
fn hash(role: Role, peer: &Address) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut take = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    match peer {
        Address::Tcp(address) => {
            match address.ip() {
                IpAddr::V4(ip) => take(&ip.octets()),
                IpAddr::V6(ip) => take(&ip.octets()),
            }
            if role == Role::Caller {
                take(&address.port().to_le_bytes());
            }
        }
        Address::Unix(path) => take(path.as_bytes()),
        _ => {}
    }
    hash | 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::PROBES;

    #[test]
    fn a_peer_is_looked_for_in_few_places() {
        let peers = Peers::new(1 << 16);
        let peer = Address::Unix("/run/peer".into());
        // What differs by so much begins to look at the same place.
        let keys = (0..40).map(|n| 1 + (n << 48));
        let known = |key| peers.name(key, Role::Server, Some(&peer)).0 == key;
        let told_apart = keys.clone().filter(|key| known(*key)).count();
        assert_eq!(told_apart, PROBES);
        assert_eq!(keys.filter(|key| known(*key)).count(), PROBES, "they stay");
        assert!(known(3), "others have room");
    }
}

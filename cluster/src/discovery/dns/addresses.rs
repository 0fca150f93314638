//! What is known of the addresses of hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{ADDRESSES_MAX, DnsAnswer, DnsFailure, DnsFamily, DnsKind, DnsQuery, DnsRecord};

/// The last good addresses of hosts, and what becomes of them in a round of questions.
#[derive(Debug)]
pub(super) struct Addresses {
    family: DnsFamily,
    known: BTreeMap<DnsQuery, Vec<IpAddr>>,
    /// Hosts of this round.
    asked: BTreeSet<String>,
    /// Hosts of this round for which there was an answer.
    heard: BTreeSet<String>,
    /// What there is none of, said a name server in this round.
    none: BTreeSet<DnsQuery>,
}

impl Addresses {
    pub(super) fn new(family: DnsFamily) -> Addresses {
        Addresses {
            family,
            known: BTreeMap::new(),
            asked: BTreeSet::new(),
            heard: BTreeSet::new(),
            none: BTreeSet::new(),
        }
    }

    /// A round begins.
    pub(super) fn begin(&mut self) {
        self.asked.clear();
        self.heard.clear();
        self.none.clear();
    }

    /// What is asked of a host at first.
    pub(super) fn first(&mut self, host: &str) -> Vec<DnsQuery> {
        self.asked.insert(host.to_owned());
        let kinds = match self.family {
            DnsFamily::V4First => &[DnsKind::A][..],
            DnsFamily::V6First => &[DnsKind::Aaaa],
            DnsFamily::Both => &[DnsKind::A, DnsKind::Aaaa],
        };
        kinds.iter().map(|kind| DnsQuery { name: host.to_owned(), kind: *kind }).collect()
    }

    /// Gives what is to be asked next.
    pub(super) fn handle_answer(
        &mut self,
        query: DnsQuery,
        answer: Result<DnsAnswer, DnsFailure>,
    ) -> Option<DnsQuery> {
        let address = |record| match record {
            DnsRecord::Address(address) => Some(address),
            DnsRecord::Service { .. } => None,
        };
        let records = match answer {
            Ok(answer) => answer.records,
            Err(DnsFailure::NoRecords) => Vec::new(),
            // What was known of it holds.
            Err(DnsFailure::Failed(_)) => return None,
        };
        let found: BTreeSet<IpAddr> =
            records.into_iter().filter_map(address).take(ADDRESSES_MAX).collect();
        if !found.is_empty() {
            self.heard.insert(query.name.clone());
            self.known.insert(query, found.into_iter().collect());
            return None;
        }
        let next = self.other(&query);
        self.none.insert(query);
        next
    }

    /// The other family of a host of which one will do.
    fn other(&self, query: &DnsQuery) -> Option<DnsQuery> {
        let kind = match (self.family, query.kind) {
            (DnsFamily::V4First, DnsKind::A) => DnsKind::Aaaa,
            (DnsFamily::V6First, DnsKind::Aaaa) => DnsKind::A,
            _ => return None,
        };
        Some(DnsQuery { name: query.name.clone(), kind })
    }

    /// A round is over. Says of a host without addresses, if there is one.
    pub(super) fn end(&mut self) -> Option<String> {
        // A host that has addresses of one family has lost those of the other. One that has none at all has not: its
        // last ones are better than nobody.
        let Addresses { asked, heard, none, known, .. } = self;
        known.retain(|query, _| {
            asked.contains(&query.name) && !(heard.contains(&query.name) && none.contains(query))
        });
        let is_lost = |host: &&String| {
            !heard.contains(*host) && none.iter().any(|query| query.name == **host)
        };
        asked.iter().find(is_lost).map(|host| format!("{host}: there are no addresses"))
    }

    /// Those of a host, in order.
    pub(super) fn of(&self, host: &str) -> Vec<IpAddr> {
        let known = |kind| {
            let query = DnsQuery { name: host.to_owned(), kind };
            self.known.get(&query).cloned().unwrap_or_default()
        };
        let (v4, v6) = (known(DnsKind::A), known(DnsKind::Aaaa));
        match self.family {
            DnsFamily::V4First if !v4.is_empty() => v4,
            DnsFamily::V6First if !v6.is_empty() => v6,
            _ => v4.into_iter().chain(v6).collect(),
        }
    }
}

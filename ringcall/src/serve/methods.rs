//! The table of methods that one side tells the other: which methods it serves, with which signatures.

use bytes::Bytes;
use ringcall_core::{CALLS_BEGUN, METHODS_PAGE, method_id};
use sha2::{Digest, Sha256};

use super::MethodTable;

/// The control method that gives the table by page.
pub(crate) const PAGE: u64 = method_id(PAGE_NAME);
pub(crate) const PAGE_NAME: &str = METHODS_PAGE;

/// The control method that tells a caller that its call begins.
pub(crate) const BEGUN: u64 = method_id(CALLS_BEGUN);

/// Whether a method is the protocol's own: observers are told of calls that somebody makes.
pub(crate) fn is_control(method: u64) -> bool {
    method == PAGE || method == BEGUN
}

/// Of one row: method, in-signature and out-signature.
const ROW_BYTES: usize = 24;
/// In front of a page: digest, rows in all.
const HEAD_BYTES: usize = 16;
/// Of one page.
const ROWS_MAX: usize = 1024;
/// Of a table that is taken from the other side; more are not looked at.
const TABLE_ROWS_MAX: usize = 64 * 1024;

/// Rows in the order of their numbers. A method has a row for each in-signature that it takes.
#[derive(Debug, Default)]
pub(crate) struct MethodRows {
    digest: u64,
    /// Codecs of users among its messages, as bits of HELLO.
    codecs: u64,
    rows: Vec<[u64; 3]>,
}

impl MethodRows {
    pub(super) fn of<'a>(methods: impl Iterator<Item = &'a MethodTable>) -> MethodRows {
        let mut codecs = 0;
        let mut rows = Vec::new();
        for method in methods {
            let parts = [Some(method.argument()), Some(method.reply()), Some(method.error())];
            for part in parts.into_iter().chain([method.items_in(), method.items_out()]).flatten() {
                codecs |= 1u64.checked_shl(part.codec.0.into()).unwrap_or(0);
            }
            let signatures = method.signatures();
            let previously = signatures.previously_in.iter().map(|other| other.signature);
            let in_signatures = std::iter::once(signatures.in_signature).chain(previously);
            rows.extend(in_signatures.map(|one| [method.id(), one, signatures.out_signature]));
        }
        rows.sort_unstable();
        MethodRows { digest: digest(&rows), codecs, rows }
    }

    /// The first eight bytes of the rows' SHA-256; 0 without rows.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn codecs(&self) -> u64 {
        self.codecs
    }

    /// Whether a method takes an in-signature; `None` if there is no such method.
    pub(crate) fn takes(&self, method: u64, in_signature: u64) -> Option<bool> {
        let first = self.rows.partition_point(|[of, ..]| *of < method);
        let rows = self.rows[first..].iter().take_while(|[of, ..]| *of == method);
        rows.fold(None, |takes, [_, one, _]| Some(takes == Some(true) || *one == in_signature))
    }

    /// The answer to a request for a page. `None` if it is not one.
    pub(crate) fn page(&self, body: &[u8]) -> Option<Vec<u8>> {
        let first = match body {
            [] => 0,
            _ => u64::from_le_bytes(body.try_into().ok()?),
        };
        let first =
            usize::try_from(first).map_or(self.rows.len(), |first| first.min(self.rows.len()));
        let rows = self.rows[first..].iter().take(ROWS_MAX);
        let mut page = Vec::with_capacity(HEAD_BYTES + rows.len() * ROW_BYTES);
        page.extend_from_slice(&self.digest.to_le_bytes());
        page.extend_from_slice(&(self.rows.len() as u64).to_le_bytes());
        rows.flatten().for_each(|number| page.extend_from_slice(&number.to_le_bytes()));
        Some(page)
    }
}

fn digest(rows: &[[u64; 3]]) -> u64 {
    if rows.is_empty() {
        return 0;
    }
    let mut hash = Sha256::new();
    rows.iter().flatten().for_each(|number| hash.update(number.to_le_bytes()));
    let hash = hash.finalize();
    // 0 says that nothing is said.
    hash.first_chunk().map_or(1, |first| u64::from_le_bytes(*first).max(1))
}

/// A table on its way here, page by page. What it says is believed only if it has the digest that HELLO said,
/// and even then it only decides what a call is tried in first.
#[derive(Debug)]
pub(crate) struct Pages {
    digest: u64,
    rows: Vec<[u64; 3]>,
}

impl Pages {
    pub(crate) fn new(digest: u64) -> Pages {
        Pages { digest, rows: Vec::new() }
    }

    /// The argument that asks for the next one.
    pub(crate) fn next(&self) -> Bytes {
        Bytes::copy_from_slice(&(self.rows.len() as u64).to_le_bytes())
    }

    /// Takes a page. `Some(None)` if there are further ones, `None` if it makes no sense.
    pub(crate) fn take_page(&mut self, page: &[u8]) -> Option<Option<MethodRows>> {
        let (head, rows) = page.split_first_chunk::<HEAD_BYTES>()?;
        let [digest, count] = numbers(head)?;
        let count = usize::try_from(count).ok()?;
        let is_whole = rows.len() % ROW_BYTES == 0;
        let has = self.rows.len() + rows.len() / ROW_BYTES;
        let is_sensible = digest == self.digest && count <= TABLE_ROWS_MAX && has <= count;
        if !is_whole || !is_sensible || rows.is_empty() {
            return None;
        }
        for row in rows.chunks_exact(ROW_BYTES) {
            self.rows.push(numbers(row)?);
        }
        if has < count {
            return Some(None);
        }
        let rows = std::mem::take(&mut self.rows);
        let is_sorted = rows.is_sorted();
        if !is_sorted || self::digest(&rows) != self.digest {
            return None;
        }
        Some(Some(MethodRows { digest: self.digest, codecs: 0, rows }))
    }
}

fn numbers<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let mut numbers = [0; N];
    for (number, bytes) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
        *number = u64::from_le_bytes(bytes.try_into().ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: u64) -> MethodRows {
        let rows: Vec<_> = (0..count).map(|n| [n / 2, n, 7]).collect();
        MethodRows { digest: digest(&rows), codecs: 0, rows }
    }

    fn fetch(table: &MethodRows, digest: u64) -> Option<MethodRows> {
        let mut pages = Pages::new(digest);
        loop {
            if let Some(table) = pages.take_page(&table.page(&pages.next())?)? {
                return Some(table);
            }
        }
    }

    #[test]
    fn tables_arrive_by_page() {
        for count in [1, 2, 1023, 1024, 1025, 5000] {
            let table = rows(count);
            let fetched = fetch(&table, table.digest()).unwrap();
            assert_eq!(fetched.rows, table.rows);
            assert_eq!(fetched.takes(0, 0), Some(true));
            assert_eq!(fetched.takes(0, 5000), Some(false));
            assert_eq!(fetched.takes(5000, 0), None);
        }
        assert!(rows(3).page(b"?").is_none());
    }

    #[test]
    fn a17_tables_that_lie_are_discarded() {
        let table = rows(1500);
        // Another one than HELLO has said, rows that are not those of the digest, or in another order.
        assert!(fetch(&table, table.digest() ^ 1).is_none());
        let mut other = rows(1500);
        other.rows[3][1] ^= 1;
        assert!(fetch(&other, other.digest()).is_none());
        let mut unsorted = rows(1500);
        unsorted.rows.swap(1, 2);
        unsorted.digest = digest(&unsorted.rows);
        assert!(fetch(&unsorted, unsorted.digest()).is_none());
    }

    #[test]
    fn pages_that_make_no_sense_end_it() {
        let page = |digest: u64, count: u64, rows: &[u8]| {
            [&digest.to_le_bytes()[..], &count.to_le_bytes(), rows].concat()
        };
        for wrong in [
            Vec::new(),
            page(7, 10, &[]),
            page(7, u64::MAX, &[0; 24]),
            page(7, TABLE_ROWS_MAX as u64 + 1, &[0; 24]),
            page(7, 1, &[0; 48]),
            page(7, 2, &[0; 25]),
            page(8, 2, &[0; 24]),
            page(7, 1, &[0; 24]),
        ] {
            assert!(Pages::new(7).take_page(&wrong).is_none());
        }
        // Never the last page: it ends where the rows should.
        let mut pages = Pages::new(7);
        assert!(pages.take_page(&page(7, 3, &[0; 48])).unwrap().is_none());
        assert!(pages.take_page(&page(7, 3, &[0; 48])).is_none());
    }
}

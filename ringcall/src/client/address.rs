//! Where to connect and listen, as people write it.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use parking_lot::Mutex;
use ringcall_core::Address;

/// Something that names a place: `"127.0.0.1:7000"`, `"[::1]:7000"`, `"localhost:7000"`, `"unix:/path"`, a
/// [`SocketAddr`], an [`Address`], a [`Target`], a host and a port: `("localhost", 7000)`, `(ip, 7000)`.
pub trait ToAddress {
    /// What the user wrote, for messages. The host in it is the one whose certificate is asked for with TLS.
    fn to_text(&self) -> String;

    /// What it means. A host name is not looked up yet.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    fn target(&self) -> Result<Target, String> {
        Target::parse(&self.to_text())
    }
}

/// Whom a client connects to: an address, or a name whose addresses are looked up each time that a connection is opened.
///
/// Names are looked up by the system (`getaddrinfo`), on a thread of their own. Another way of looking up is given by
/// [`looked_up`](Target::looked_up).
///
/// When a name has several addresses they are tried in their order, each for as long as an engine waits for a connection, until
/// one answers; after the last has failed there is a pause, and then the name is looked up again. A name that cannot be looked
/// up has the addresses that were found the last time.
#[derive(Clone)]
pub struct Target(Kind);

#[derive(Clone)]
enum Kind {
    Address(Address),
    LookedUp { name: Arc<str>, lookup: Lookup },
}

/// Finds the addresses of a name. It may block.
pub(crate) type Lookup = Arc<dyn Fn() -> Result<Vec<Address>, String> + Send + Sync>;

impl Target {
    /// A place that `lookup` finds whenever a connection is to be opened, on a thread where it may block for as long as it takes; `name`
    /// is what it is called: `host:port`, where the host is the one whose certificate is asked for with TLS. The first of
    /// the addresses is tried first. An error is logged.
    ///
    /// ```no_run
    /// use ringcall::{Address, Client, Target};
    ///
    /// # fn instances_of(_: &str) -> Result<Vec<Address>, String> { Ok(Vec::new()) }
    /// # fn main() -> Result<(), ringcall::CallError> {
    /// let orders = Target::looked_up("orders:7000", || instances_of("orders"));
    /// let client = Client::connect(orders).wait()?;
    /// # Ok(()) }
    /// ```
    pub fn looked_up<F>(name: impl Into<String>, lookup: F) -> Target
    where
        F: Fn() -> Result<Vec<Address>, String> + Send + Sync + 'static,
    {
        let name: String = name.into();
        Target(Kind::LookedUp { name: name.into(), lookup: Arc::new(lookup) })
    }

    fn parse(text: &str) -> Result<Target, String> {
        #[cfg(feature = "sim")]
        if let Some(resolved) = crate::sim::resolve(text) {
            return resolved.map(Target::from);
        }
        match text.parse::<Address>() {
            Ok(address) => Ok(address.into()),
            Err(_) if is_name(text) => {
                let name = text.to_owned();
                Ok(Target::looked_up(text, move || look_up(&name)))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// One address, for those who need it now. It may block.
    pub(crate) fn find(&self) -> Result<Address, String> {
        match &self.0 {
            Kind::Address(address) => Ok(address.clone()),
            Kind::LookedUp { lookup, .. } => {
                lookup()?.into_iter().next().ok_or_else(|| NO_ADDRESS.to_owned())
            }
        }
    }

    pub(crate) fn address(&self) -> Option<&Address> {
        match &self.0 {
            Kind::Address(address) => Some(address),
            Kind::LookedUp { .. } => None,
        }
    }

    /// How its addresses are found, if it is not one itself.
    pub(crate) fn lookup(&self) -> Option<&Lookup> {
        match &self.0 {
            Kind::Address(_) => None,
            Kind::LookedUp { lookup, .. } => Some(lookup),
        }
    }
}

pub(crate) const NO_ADDRESS: &str = "the name has no address";

/// Whether it is written like a host and a port.
fn is_name(text: &str) -> bool {
    let is_of_host = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && host.chars().all(is_of_host) && port.parse::<u16>().is_ok()
    })
}

fn look_up(name: &str) -> Result<Vec<Address>, String> {
    let found = name.to_socket_addrs().map_err(|error| error.to_string())?;
    Ok(found.map(Address::Tcp).collect())
}

impl From<Address> for Target {
    fn from(address: Address) -> Target {
        Target(Kind::Address(address))
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Target {
        Address::Tcp(address).into()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Address(address) => address.fmt(f),
            Kind::LookedUp { name, .. } => f.write_str(name),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

impl ToAddress for Target {
    fn to_text(&self) -> String {
        self.to_string()
    }

    fn target(&self) -> Result<Target, String> {
        Ok(self.clone())
    }
}

impl ToAddress for &str {
    fn to_text(&self) -> String {
        (*self).to_owned()
    }
}

impl ToAddress for String {
    fn to_text(&self) -> String {
        self.clone()
    }
}

impl ToAddress for &String {
    fn to_text(&self) -> String {
        (*self).clone()
    }
}

impl ToAddress for SocketAddr {
    fn to_text(&self) -> String {
        self.to_string()
    }

    fn target(&self) -> Result<Target, String> {
        Ok((*self).into())
    }
}

/// A name or an IP address, without brackets, and a port.
impl ToAddress for (&str, u16) {
    fn to_text(&self) -> String {
        match self.0.parse::<IpAddr>() {
            Ok(ip) => (ip, self.1).to_text(),
            Err(_) => format!("{}:{}", self.0, self.1),
        }
    }
}

impl ToAddress for (String, u16) {
    fn to_text(&self) -> String {
        (&*self.0, self.1).to_text()
    }
}

impl ToAddress for (IpAddr, u16) {
    fn to_text(&self) -> String {
        SocketAddr::from(*self).to_string()
    }

    fn target(&self) -> Result<Target, String> {
        Ok(SocketAddr::from(*self).into())
    }
}

impl ToAddress for Address {
    fn to_text(&self) -> String {
        self.to_string()
    }

    fn target(&self) -> Result<Target, String> {
        Ok(self.clone().into())
    }
}

impl ToAddress for &Address {
    fn to_text(&self) -> String {
        self.to_string()
    }

    fn target(&self) -> Result<Target, String> {
        Ok((*self).clone().into())
    }
}

/// Where the other side is, as observers are told: known from the start, or once a connection was opened.
#[derive(Clone)]
pub(crate) enum PeerAddress {
    Unknown,
    Known(Address),
    Found(Arc<Mutex<Option<Address>>>),
}

impl PeerAddress {
    /// A connection to this address is being opened.
    pub(crate) fn found(&self, address: &Address) {
        if let PeerAddress::Found(found) = self {
            *found.lock() = Some(address.clone());
        }
    }

    /// A copy of what may change while somebody looks at it.
    pub(crate) fn get(&self) -> Option<Cow<'_, Address>> {
        match self {
            PeerAddress::Unknown => None,
            PeerAddress::Known(address) => Some(Cow::Borrowed(address)),
            PeerAddress::Found(found) => found.lock().clone().map(Cow::Owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e23_addresses_are_read_as_people_write_them() {
        let known = |text: &str| text.target().unwrap().address().cloned();
        assert_eq!(known("127.0.0.1:7000").unwrap().to_string(), "127.0.0.1:7000");
        assert_eq!(known("[::1]:7000").unwrap().to_string(), "[::1]:7000");
        assert_eq!(known("unix:/tmp/x").unwrap(), Address::Unix("/tmp/x".into()));
        assert!(known("localhost:7000").is_none());
        let text = |to: &dyn ToAddress| to.target().unwrap().to_string();
        assert_eq!(text(&("localhost", 7000_u16)), "localhost:7000");
        assert_eq!(text(&("::1", 7000_u16)), "[::1]:7000");
        assert_eq!(text(&("10.0.0.7".to_owned(), 7000_u16)), "10.0.0.7:7000");
        assert_eq!(text(&(IpAddr::from([0; 16]), 7000_u16)), "[::]:7000");
        assert!(("a b", 7000_u16).target().is_err());
        assert!(matches!("localhost:7000".target().unwrap().find(), Ok(Address::Tcp(_))));
        for wrong in
            ["7000", "unix:", "localhost", "localhost:port", ":7000", "a/b:1", "http://a:1"]
        {
            let error = wrong.target().unwrap_err();
            assert!(error.contains("127.0.0.1:7000") || wrong == "unix:", "{wrong}: {error}");
        }
    }
}

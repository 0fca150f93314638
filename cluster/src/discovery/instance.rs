//! One instance of a service.

use std::collections::BTreeMap;
use std::fmt;

use ringcall_core::{Address, Expected};

/// The weight of an instance that does not say one.
pub(crate) const WEIGHT: u32 = 100;
const WEIGHT_MAX: u32 = 10_000;
const TEXT_BYTES_MAX: usize = 256;
const TAGS_MAX: usize = 64;
const TAG_BYTES_MAX: usize = 8 * 1024;
const SHAPES_MAX: usize = 1024;

/// A process that offers a service.
///
/// What a source says of one is checked before it is believed ([`check`](Instance::check)): texts have at
/// most 256 bytes, there are at most 64 tags with 8 KiB together and 1024 shapes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Instance {
    /// Its name, which no other instance of the service has. A process that starts again has another one
    /// unless it wants to be taken for the same.
    pub name: String,
    /// The service that it offers.
    pub service: String,
    /// Which version of it; may be empty.
    pub version: String,
    /// Which group it belongs to; may be empty.
    pub group: String,
    /// Where it runs: a zone, a rack; may be empty.
    pub zone: String,
    /// Where it is reached.
    pub address: Address,
    /// Who the process at the address says it is, if it is the right one; `None` if that is not looked at. Checked when a
    /// connection to it is opened.
    pub identity: Option<Expected>,
    /// What its certificate says that it is called, for those who speak TLS and do not expect a name themselves: a DNS name or
    /// an IP address. `None`: its address.
    pub tls_name: Option<String>,
    /// How much it takes, relative to others; 100 is ordinary, 0 takes no calls, at most 10 000.
    pub weight: u32,
    /// Calls go to instances with the lowest number of which one can be called, within what rules and groups say; 0 is
    /// ordinary.
    pub priority: u16,
    /// When it was registered, in milliseconds of the *source's* clock. Clocks of the instances themselves
    /// are not used: a wrong one would make an old instance look new, and a new one warm.
    pub registered_ms: Option<u64>,
    /// What else is said of it, for routing.
    pub tags: BTreeMap<String, String>,
    /// Signatures of the methods that it offers; empty if it does not say.
    pub shapes: Vec<u64>,
}

/// Why an instance is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalid {
    /// It has no name, or no service.
    Nameless,
    /// A text is longer than 256 bytes, or has characters that do not print.
    Text,
    /// Port 0, or an address that is nobody's: `0.0.0.0`, `::`, a multicast group.
    Address,
    /// A name of a certificate that is empty, is longer than 256 bytes, or has characters that do not print.
    TlsName,
    /// A weight above 10 000.
    Weight,
    /// More than 64 tags, or more than 8 KiB of them.
    Tags,
    /// More than 1024 shapes.
    Shapes,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Invalid::Nameless => "it has no name, or no service",
            Invalid::Text => "a text has more than 256 bytes, or characters that do not print",
            Invalid::Address => "nobody can be reached at its address",
            Invalid::TlsName => "its certificate cannot have this name",
            Invalid::Weight => "its weight is above 10000",
            Invalid::Tags => "it has more than 64 tags, or more than 8 KiB of them",
            Invalid::Shapes => "it has more than 1024 shapes",
        })
    }
}

impl std::error::Error for Invalid {}

impl Instance {
    /// An instance with a name, of a service, at an address, and nothing else said of it.
    #[must_use]
    pub fn new(
        service: impl Into<String>,
        name: impl Into<String>,
        address: impl Into<Address>,
    ) -> Instance {
        Instance {
            name: name.into(),
            service: service.into(),
            version: String::new(),
            group: String::new(),
            zone: String::new(),
            address: address.into(),
            identity: None,
            tls_name: None,
            weight: WEIGHT,
            priority: 0,
            registered_ms: None,
            tags: BTreeMap::new(),
            shapes: Vec::new(),
        }
    }

    /// The same, for a process that says who it is.
    #[must_use]
    pub fn with_identity(self, expected: Expected) -> Instance {
        Instance { identity: Some(expected), ..self }
    }

    /// The same, for a process whose certificate is for this name.
    #[must_use]
    pub fn with_tls_name(self, name: impl Into<String>) -> Instance {
        Instance { tls_name: Some(name.into()), ..self }
    }

    /// The same with another weight.
    #[must_use]
    pub fn with_weight(self, weight: u32) -> Instance {
        Instance { weight, ..self }
    }

    /// The same with another priority.
    #[must_use]
    pub fn with_priority(self, priority: u16) -> Instance {
        Instance { priority, ..self }
    }

    /// Whether another one is reached like this one: a connection to it is one to the other.
    pub(crate) fn is_reached_like(&self, other: &Instance) -> bool {
        self.address == other.address
            && self.identity == other.identity
            && self.tls_name == other.tls_name
    }

    /// Whether it is what an instance may be.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self) -> Result<(), Invalid> {
        if self.name.is_empty() || self.service.is_empty() {
            return Err(Invalid::Nameless);
        }
        let texts = [&self.name, &self.service, &self.version, &self.group, &self.zone];
        if !texts.iter().all(|text| is_text(text)) {
            return Err(Invalid::Text);
        }
        if self.tls_name.as_ref().is_some_and(|name| name.is_empty() || !is_text(name)) {
            return Err(Invalid::TlsName);
        }
        if !is_reachable(&self.address) {
            return Err(Invalid::Address);
        }
        if self.weight > WEIGHT_MAX {
            return Err(Invalid::Weight);
        }
        let tag_bytes: usize = self.tags.iter().map(|(key, value)| key.len() + value.len()).sum();
        if self.tags.len() > TAGS_MAX || tag_bytes > TAG_BYTES_MAX {
            return Err(Invalid::Tags);
        }
        if !self.tags.iter().all(|(key, value)| is_text(key) && !key.is_empty() && is_text(value)) {
            return Err(Invalid::Text);
        }
        if self.shapes.len() > SHAPES_MAX {
            return Err(Invalid::Shapes);
        }
        Ok(())
    }
}

fn is_text(text: &str) -> bool {
    text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control)
}

fn is_reachable(address: &Address) -> bool {
    match address {
        Address::Tcp(address) => {
            let ip = address.ip();
            address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast()
        }
        Address::Unix(path) => !path.is_empty() && path.len() < 108 && !path.contains('\0'),
        // Another kind, which core knows and this page does not.
        _ => true,
    }
}

/// Which instances somebody calls: those of a service, and of one group or version of it if that is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wanted {
    /// The service.
    pub service: String,
    /// The group, or any.
    pub group: Option<String>,
    /// The version, or any.
    pub version: Option<String>,
}

impl Wanted {
    /// Every instance of a service.
    #[must_use]
    pub fn service(service: impl Into<String>) -> Wanted {
        Wanted { service: service.into(), group: None, version: None }
    }

    /// Only those of a group.
    #[must_use]
    pub fn in_group(self, group: impl Into<String>) -> Wanted {
        Wanted { group: Some(group.into()), ..self }
    }

    /// Only those of a version.
    #[must_use]
    pub fn of_version(self, version: impl Into<String>) -> Wanted {
        Wanted { version: Some(version.into()), ..self }
    }

    /// Whether an instance is one of them.
    #[must_use]
    pub fn matches(&self, instance: &Instance) -> bool {
        let is = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|w| w == has);
        instance.service == self.service
            && is(&self.group, &instance.group)
            && is(&self.version, &instance.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(address: &str) -> Instance {
        Instance::new("quotes", "a", address.parse::<Address>().unwrap())
    }

    #[test]
    fn g09_instances_that_cannot_be_are_not_believed() {
        assert_eq!(instance("127.0.0.1:7000").check(), Ok(()));
        assert_eq!(instance("unix:/run/quotes").check(), Ok(()));
        for address in ["127.0.0.1:0", "0.0.0.0:7000", "[::]:7000", "224.0.0.1:7000"] {
            assert_eq!(instance(address).check(), Err(Invalid::Address), "{address}");
        }
        let broken = |change: fn(&mut Instance)| {
            let mut instance = instance("127.0.0.1:7000");
            change(&mut instance);
            instance.check().unwrap_err()
        };
        assert_eq!(broken(|it| it.name.clear()), Invalid::Nameless);
        assert_eq!(broken(|it| it.service.clear()), Invalid::Nameless);
        assert_eq!(broken(|it| it.zone = "z".repeat(257)), Invalid::Text);
        assert_eq!(broken(|it| it.name = "a\nb".into()), Invalid::Text);
        assert_eq!(broken(|it| it.tls_name = Some(String::new())), Invalid::TlsName);
        assert_eq!(broken(|it| it.weight = 10_001), Invalid::Weight);
        assert_eq!(broken(|it| it.shapes = vec![1; 1025]), Invalid::Shapes);
        let many =
            |it: &mut Instance| it.tags = (0..65).map(|n| (n.to_string(), "".into())).collect();
        assert_eq!(broken(many), Invalid::Tags);
        let large = |it: &mut Instance| {
            it.tags = (0..64).map(|n| (n.to_string(), "x".repeat(200))).collect();
        };
        assert_eq!(broken(large), Invalid::Tags);
    }

    #[test]
    fn what_is_wanted_is_a_service_and_perhaps_more() {
        let mut instance = instance("127.0.0.1:7000");
        instance.group = "blue".into();
        instance.version = "2".into();
        assert!(Wanted::service("quotes").matches(&instance));
        assert!(!Wanted::service("orders").matches(&instance));
        assert!(Wanted::service("quotes").in_group("blue").of_version("2").matches(&instance));
        assert!(!Wanted::service("quotes").in_group("green").matches(&instance));
        assert!(!Wanted::service("quotes").of_version("1").matches(&instance));
    }
}

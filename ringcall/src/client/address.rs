//! Where to connect and listen, as people write it.

use std::net::{SocketAddr, ToSocketAddrs};

use ringcall_core::Address;

/// Something that names an address: `"127.0.0.1:7000"`, `"[::1]:7000"`, `"localhost:7000"`,
/// `"unix:/path"`, a [`SocketAddr`], an [`Address`].
pub trait ToAddress {
    /// What the user wrote, for messages.
    fn to_text(&self) -> String;

    /// The address. A host name is looked up, which may block.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    fn resolve(&self) -> Result<Address, String> {
        let text = self.to_text();
        #[cfg(feature = "sim")]
        if let Some(resolved) = crate::sim::resolve(&text) {
            return resolved;
        }
        match text.parse() {
            Ok(address) => Ok(address),
            Err(error) if text.starts_with("unix:") => Err(format!("{error}")),
            Err(error) => {
                // Not a number, so perhaps a name.
                let mut found =
                    text.to_socket_addrs().map_err(|lookup| format!("{error} ({lookup})"))?;
                found.next().map(Address::Tcp).ok_or_else(|| "the name has no address".to_owned())
            }
        }
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

    fn resolve(&self) -> Result<Address, String> {
        Ok(Address::Tcp(*self))
    }
}

impl ToAddress for Address {
    fn to_text(&self) -> String {
        self.to_string()
    }

    fn resolve(&self) -> Result<Address, String> {
        Ok(self.clone())
    }
}

impl ToAddress for &Address {
    fn to_text(&self) -> String {
        self.to_string()
    }

    fn resolve(&self) -> Result<Address, String> {
        Ok((*self).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e23_addresses_are_read_as_people_write_them() {
        assert_eq!("127.0.0.1:7000".resolve().unwrap().to_string(), "127.0.0.1:7000");
        assert_eq!("[::1]:7000".resolve().unwrap().to_string(), "[::1]:7000");
        assert_eq!("unix:/tmp/x".resolve().unwrap(), Address::Unix("/tmp/x".into()));
        assert!(matches!("localhost:7000".resolve(), Ok(Address::Tcp(_))));
        let error = "7000".resolve().unwrap_err();
        assert!(error.contains("write 127.0.0.1:7000"), "{error}");
        assert!("unix:".resolve().is_err());
    }
}

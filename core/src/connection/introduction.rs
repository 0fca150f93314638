//! What either side shows of itself with its HELLO: credentials, and who it says it is.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use alloc::boxed::Box;
use core::fmt;

use super::Connection;
use super::ending::Ending;
use crate::frame::{Extension, ExtensionWriter, Extensions, tag};
use crate::{CloseReason, Expected, Identity, Mismatch};

/// Longer [credentials](Connection::present) do not fit into a HELLO.
pub const CREDENTIALS_BYTES_MAX: usize = 3996;

/// How long the TLVs of a HELLO may be together.
const SHOWN_BYTES_MAX: usize = CREDENTIALS_BYTES_MAX + TLV_HEAD;
/// What is in front of the value of a TLV.
const TLV_HEAD: usize = 4;

/// Credentials are longer than [`CREDENTIALS_BYTES_MAX`], or leave no room for who their side says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialsTooLong;

impl fmt::Display for CredentialsTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "credentials of a connection have {CREDENTIALS_BYTES_MAX} bytes at most, together with an identity"
        )
    }
}

impl core::error::Error for CredentialsTooLong {}

#[derive(Default)]
pub(super) struct Introduction {
    own_credentials: Option<Box<[u8]>>,
    peer_credentials: Option<Box<[u8]>>,
    /// Most connections have none.
    identities: Option<Box<Identities>>,
}

#[derive(Default)]
struct Identities {
    own: Option<Identity>,
    peer: Option<Identity>,
    expected: Option<Expected>,
}

impl Introduction {
    /// Whether nothing was said of this side, or of the other.
    pub(super) fn is_new(&self) -> bool {
        self.own_credentials.is_none() && self.identities.is_none()
    }

    /// TLVs of the own HELLO.
    pub(super) fn shown(&mut self) -> alloc::vec::Vec<u8> {
        let mut shown = ExtensionWriter::new();
        if let Some(identity) = self.identities.as_ref().and_then(|it| it.own.as_ref()) {
            let value = identity.as_str().as_bytes();
            let fits = shown.push(Extension { tag: tag::IDENTITY, critical: false, value });
            debug_assert!(fits, "an identity is short");
        }
        if let Some(value) = self.own_credentials.take() {
            let fits =
                shown.push(Extension { tag: tag::CREDENTIALS, critical: false, value: &value });
            debug_assert!(fits, "checked when they were given");
        }
        shown.finish()
    }

    /// Takes what the other side shows, from TLVs that are well-formed.
    pub(super) fn read(&mut self, extensions: &[u8]) -> Result<(), CloseReason> {
        let mut identity = None;
        for found in Extensions::new(extensions).flatten() {
            match found.tag {
                tag::CREDENTIALS if self.peer_credentials.is_none() => {
                    self.peer_credentials = Some(found.value.into());
                }
                tag::IDENTITY => {
                    let said = Identity::from_bytes(found.value).ok_or(CloseReason::BadHello)?;
                    if identity.replace(said).is_some() {
                        return Err(CloseReason::BadHello);
                    }
                }
                _ => {}
            }
        }
        if identity.is_some() {
            self.identities().peer = identity;
        }
        self.mismatch().map_or(Ok(()), |_| Err(CloseReason::WrongInstance))
    }

    fn mismatch(&self) -> Option<Mismatch> {
        let Identities { peer, expected, .. } = &**self.identities.as_ref()?;
        expected.as_ref()?.check(peer.as_ref()).err()
    }

    fn identities(&mut self) -> &mut Identities {
        self.identities.get_or_insert_default()
    }
}

/// Whether both fit into a HELLO.
fn fit(credentials: Option<usize>, identity: Option<usize>) -> bool {
    let tlv = |len: usize| len.saturating_add(TLV_HEAD).saturating_add(len.wrapping_neg() & 3);
    let [credentials, identity] = [credentials, identity].map(|len| len.map_or(0, tlv));
    credentials.saturating_add(identity) <= SHOWN_BYTES_MAX
}

impl<T> Connection<T> {
    /// Shows the other side who this is, with the HELLO: before anything was sent.
    ///
    /// # Errors
    /// When they are longer than [`CREDENTIALS_BYTES_MAX`], together with an [identity](Self::introduce).
    pub fn present(&mut self, credentials: &[u8]) -> Result<(), CredentialsTooLong> {
        if self.recorder.is_some() {
            return self.recorded_present(credentials);
        }
        let own = self.introduction.identities.as_ref().and_then(|it| it.own.as_ref());
        if !fit(Some(credentials.len()), own.map(|own| own.as_str().len())) {
            return Err(CredentialsTooLong);
        }
        self.introduction.own_credentials = Some(credentials.into());
        Ok(())
    }

    /// Tells the other side, with the HELLO, which instance this is: before anything was sent.
    ///
    /// # Errors
    /// When credentials that were [presented](Self::present) leave no room for it.
    pub fn introduce(&mut self, identity: &Identity) -> Result<(), CredentialsTooLong> {
        if self.recorder.is_some() {
            return self.recorded_introduce(identity);
        }
        let credentials = self.introduction.own_credentials.as_ref().map(|own| own.len());
        if !fit(credentials, Some(identity.as_str().len())) {
            return Err(CredentialsTooLong);
        }
        self.introduction.identities().own = Some(identity.clone());
        Ok(())
    }

    /// Says who the other side has to be: before anything was received. Its HELLO ends the connection with
    /// [`CloseReason::WrongInstance`] if it is somebody else; no call was sent by then.
    pub fn expect_peer(&mut self, expected: Expected) {
        if self.recorder.is_some() {
            return self.recorded_expect_peer(&expected);
        }
        self.introduction.identities().expected = Some(expected);
    }

    /// What the other side showed with its HELLO to prove who it is. Nobody has checked it yet.
    #[must_use]
    pub fn credentials(&self) -> Option<&[u8]> {
        self.introduction.peer_credentials.as_deref()
    }

    /// Which instance the other side said that it is, with its HELLO. Anybody may say anything.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.introduction.identities.as_ref()?.peer.as_ref()
    }

    /// Whom this side expected and whom it met, if it has ended with [`CloseReason::WrongInstance`].
    #[must_use]
    pub fn mismatch(&self) -> Option<Mismatch> {
        let is_it = |ending: Ending| ending.reason == CloseReason::WrongInstance;
        self.ending.filter(|ending| is_it(*ending))?;
        self.introduction.mismatch()
    }
}

//! What a server does before anybody can reach it, and how it is found afterwards.

use std::error::Error;
use std::fmt;
use std::fs::DirBuilder;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use ringcall_core::Address;

use super::group::ServedGroup;
use super::limits::ServerLimits;
use crate::ServeError;

/// What a hook or a registry fails with.
pub type StartError = Box<dyn Error + Send + Sync>;

/// Where a server says that it is there, for others to find: a registry, a file, a load balancer.
///
/// Given to [`Server::register`](crate::Server::register). Both are called on the thread that starts or ends the
/// server, and may block.
///
/// ```no_run
/// # #[ringcall::service] trait Echo { async fn echo(&self, body: ringcall::Bytes) -> ringcall::Bytes; }
/// # struct Mirror;
/// # impl Echo for Mirror { async fn echo(&self, body: ringcall::Bytes) -> ringcall::Bytes { body } }
/// use ringcall::{Address, Register, Server, StartError};
///
/// struct Announce;
///
/// impl Register for Announce {
///     fn register(&mut self, address: &Address) -> Result<(), StartError> {
///         Ok(std::fs::write("/run/echo.address", address.to_string())?)
///     }
///
///     fn unregister(&mut self) {
///         let _ = std::fs::remove_file("/run/echo.address");
///     }
/// }
///
/// Server::bind("127.0.0.1:0").service(Mirror.into_echo()).register(Announce).run()?;
/// # Ok::<(), ringcall::ServeError>(())
/// ```
pub trait Register: Send {
    /// The group of the server, before it is registered: whoever says in which one it is to be keeps a clone. Does nothing by
    /// default.
    fn take_group(&mut self, group: &ServedGroup) {
        let _ = group;
    }

    /// The server accepts connections at this address: called when its hooks have returned and it listens.
    ///
    /// # Errors
    /// Those of the registry. The server then ends at once, and [`Server::start`](crate::Server::start) fails.
    fn register(&mut self, address: &Address) -> Result<(), StartError>;

    /// The server is about to end: called before anything else is done about it, once for each time that `register`
    /// succeeded. It still takes calls, so this may wait until clients have heard.
    fn unregister(&mut self);
}

/// Those that have been told of a server.
#[derive(Default)]
pub(super) struct Registered(Vec<Box<dyn Register>>);

impl Registered {
    /// Tells one after another.
    pub(super) fn tell(
        &mut self,
        all: Vec<Box<dyn Register>>,
        address: &Address,
        group: &ServedGroup,
    ) -> Result<(), ServeError> {
        for mut one in all {
            one.take_group(group);
            one.register(address).map_err(ServeError::Register)?;
            self.0.push(one);
        }
        Ok(())
    }

    /// Tells all that were told, the last first.
    pub(super) fn take_back(&mut self) {
        while let Some(mut one) = self.0.pop() {
            // The server must end all the same.
            if catch_unwind(AssertUnwindSafe(|| one.unregister())).is_err() {
                log::error!("a registry panicked when it was told that the server ends");
            }
        }
    }
}

/// What is done before a server listens.
pub(super) type StartHook = Box<dyn FnOnce(&Starting) -> Result<(), StartError> + Send>;

/// A server that serves already, and that nobody else can reach yet: for the hooks of
/// [`Server::on_start`](crate::Server::on_start).
pub struct Starting {
    address: Address,
    limits: ServerLimits,
    /// Removed with it.
    folder: PathBuf,
}

impl Starting {
    /// Makes a folder that only this user may enter, for a socket.
    pub(super) fn prepare(limits: ServerLimits) -> Result<Starting, ServeError> {
        let random = RandomState::new().hash_one(0);
        let name = format!("ringcall-{}-{random:016x}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        // It is an error if there is something of that name.
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(|error| ServeError::Start(error.into()))?;
        let path = folder.join("starting");
        let address = Address::Unix(path.to_string_lossy().into_owned());
        Ok(Starting { address, limits, folder })
    }

    /// Where it can be called meanwhile: a unix socket in a folder that only this user may enter. Calls there pass
    /// everything that calls pass, so with TLS they need it, and with authorization leave.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What the server refuses when there is too much to do: a clone of it can be kept, to
    /// [replace](ServerLimits::replace) them later.
    #[must_use]
    pub fn limits(&self) -> &ServerLimits {
        &self.limits
    }

    /// Runs the hooks in their order, until one fails.
    pub(super) fn run(&self, hooks: Vec<StartHook>) -> Result<(), ServeError> {
        hooks.into_iter().try_for_each(|hook| hook(self)).map_err(ServeError::Start)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            log::warn!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

impl fmt::Debug for Starting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Starting").field("address", &self.address).finish_non_exhaustive()
    }
}

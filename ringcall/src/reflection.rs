//! A service that tells which services there are: for tools that call them without their types.
//!
//! A server that wants to be asked offers it like any other; who may call it is decided like for any other, too:
//!
//! ```
//! use ringcall::reflection::{Interface, Reflection, ReflectionClient};
//!
//! # #[ringcall::service(name = "market.Quotes")]
//! # trait Quotes { async fn last(&self, symbol: String) -> u64; }
//! # struct Book;
//! # impl Quotes for Book { async fn last(&self, _: String) -> u64 { 42 } }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = ringcall::Server::bind("127.0.0.1:0")
//!     .service(Book.into_quotes())
//!     .service(Interface.into_reflection())
//!     .start()?;
//!
//! let reflection = ReflectionClient::connect(server.address()).wait()?;
//! assert_eq!(*reflection.services().wait()?, ["market.Quotes", "ringcall.Reflection"]);
//! let quotes = reflection.describe(&"market.Quotes".to_owned()).wait()?;
//! assert_eq!(quotes.methods[0].name, "last");
//! # Ok(()) }
//! ```
//!
//! The types of a method are given as the texts of its signatures, which `docs/SHAPES.md` explains and
//! [`Described`](crate::shapes::Described) takes apart. The crate `ringcall-generic` makes calls of that, with values of JSON.

use std::fmt;
use std::time::Duration;

use crate::{Context, MethodTable, ServiceTable};

/// Which services a side serves.
#[crate::service(crate = crate)]
pub trait Reflection {
    /// The names of the services that this side serves on this connection.
    #[method(idempotent)]
    async fn services(&self, cx: &Context) -> Vec<String>;

    /// What is known of one of them.
    #[method(idempotent)]
    async fn describe(
        &self,
        cx: &Context,
        service: String,
    ) -> Result<ServiceDescription, NoSuchService>;
}

/// A service.
#[crate::message(crate = crate)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceDescription {
    /// Its name: `package.Service`.
    pub name: String,
    /// The doc comment of its trait.
    pub docs: String,
    /// Its methods, in the order of the trait.
    pub methods: Vec<MethodDescription>,
}

/// A method.
#[crate::message(crate = crate)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodDescription {
    /// Its name within the service.
    pub name: String,
    /// Its doc comment.
    pub docs: String,
    /// The types that go in, as their signature has them: the argument, and the items of the caller.
    pub text_in: String,
    /// The types that come out: the reply, the error, and the items of the reply.
    pub text_out: String,
    /// Whether it has no reply.
    pub is_one_way: bool,
    /// Whether running it twice does no harm.
    pub is_idempotent: bool,
    /// How long callers wait unless they say otherwise.
    pub deadline: Option<Duration>,
}

/// There is no service of that name on this connection.
#[crate::message(crate = crate)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSuchService;

impl fmt::Display for NoSuchService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no service of that name")
    }
}

impl std::error::Error for NoSuchService {}

/// Tells of all services that are served beside it, itself included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interface;

impl Reflection for Interface {
    async fn services(&self, cx: &Context) -> Vec<String> {
        cx.services().iter().map(|service| service.name().to_owned()).collect()
    }

    async fn describe(
        &self,
        cx: &Context,
        service: String,
    ) -> Result<ServiceDescription, NoSuchService> {
        let services = cx.services();
        let found = services.iter().find(|table| table.name() == service);
        found.map(|table| ServiceDescription::from(*table)).ok_or(NoSuchService)
    }
}

impl From<&ServiceTable> for ServiceDescription {
    fn from(table: &ServiceTable) -> ServiceDescription {
        ServiceDescription {
            name: table.name().to_owned(),
            docs: table.docs().to_owned(),
            methods: table.methods().iter().map(MethodDescription::from).collect(),
        }
    }
}

impl From<&MethodTable> for MethodDescription {
    fn from(method: &MethodTable) -> MethodDescription {
        MethodDescription {
            name: method.name().to_owned(),
            docs: method.docs().to_owned(),
            text_in: method.signatures().in_text.clone(),
            text_out: method.signatures().out_text.clone(),
            is_one_way: method.is_one_way(),
            is_idempotent: method.is_idempotent(),
            deadline: method.default_deadline(),
        }
    }
}

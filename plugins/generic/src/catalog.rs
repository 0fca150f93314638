//! What a server serves.

use std::time::Duration;

use ringcall::reflection::{MethodDescription, ReflectionClient, ServiceDescription};
use ringcall::shapes::{Described, Type};
use ringcall::{BlockOn, CallError, Channel, IntoOwned, ServiceTable};
use serde_json::Value;

use crate::{CatalogError, GenericError, Mismatch, decode, encode, example, schema, shown};

/// The services of a server, with what their methods take and give.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    services: Vec<Service>,
}

/// How many services are asked for.
const SERVICES_MAX: usize = 4096;

impl Catalog {
    /// Asks the server, which has to offer [`ringcall::reflection`].
    ///
    /// # Errors
    /// When it does not say, or not so that it can be understood.
    pub async fn fetch<C>(channel: &C) -> Result<Catalog, CatalogError>
    where
        C: Channel<Body: IntoOwned>,
    {
        Catalog::fetch_by(&ReflectionClient::new(channel)).await
    }

    /// The same by a client of it that there is, which may have [options](ReflectionClient::with_options) of its own, and which
    /// may be one that owns its channel: the future of that may go to other threads where the compiler does not see it of the
    /// other.
    ///
    /// # Errors
    /// As for [`fetch`](Self::fetch).
    pub async fn fetch_by<C>(reflection: &ReflectionClient<C>) -> Result<Catalog, CatalogError>
    where
        C: Channel<Body: IntoOwned>,
    {
        let names = reflection.services().await;
        let names = names.map_err(|error| error.map_app(|never| match never {}))?.to_owned();
        if names.len() > SERVICES_MAX {
            return Err(CatalogError::TooMany);
        }
        let mut services = Vec::new();
        for name in &names {
            match reflection.describe(name).await {
                Ok(service) => services.push(Service::new(service.to_owned())?),
                // It was taken away in the meantime.
                Err(CallError::App(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Catalog { services })
    }

    /// Asks the server, and blocks this thread meanwhile, see [`fetch`](Self::fetch).
    ///
    /// # Errors
    /// As for it.
    pub fn wait_for<C>(channel: &C) -> Result<Catalog, CatalogError>
    where
        C: BlockOn + Channel<Body: IntoOwned>,
    {
        channel.block_on(Catalog::fetch(channel))
    }

    /// Of what a server has said before, or somebody else has.
    ///
    /// # Errors
    /// When it cannot be understood.
    pub fn read(
        services: impl IntoIterator<Item = ServiceDescription>,
    ) -> Result<Catalog, CatalogError> {
        let services = services.into_iter().map(Service::new).collect::<Result<_, _>>()?;
        Ok(Catalog { services })
    }

    /// Of services whose tables this program has: `QuotesClient::service_table()`.
    ///
    /// # Panics
    /// Never: these tables are made by `#[service]`.
    #[must_use]
    pub fn of(tables: &[&ServiceTable]) -> Catalog {
        let services = tables.iter().map(|table| ServiceDescription::from(*table));
        Catalog::read(services).expect("texts of our own")
    }

    /// The services, in the order in which the server has them.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// A method by its full name, `package.Service/method`.
    #[must_use]
    pub fn method(&self, full_name: &str) -> Option<&Method> {
        self.methods().find(|method| method.full_name == full_name)
    }

    /// The same, for whoever wants to say which methods may have been meant.
    ///
    /// # Errors
    /// [`GenericError::NoSuchMethod`].
    pub fn find(&self, full_name: &str) -> Result<&Method, GenericError> {
        self.method(full_name).ok_or_else(|| GenericError::NoSuchMethod {
            method: full_name.to_owned(),
            alike: self.alike(full_name),
        })
    }

    /// All methods of all services.
    pub fn methods(&self) -> impl Iterator<Item = &Method> {
        self.services.iter().flat_map(Service::methods)
    }

    /// The full names of methods that may have been meant.
    fn alike(&self, name: &str) -> Vec<String> {
        const SHOWN_MAX: usize = 8;
        let method = name.rsplit(['/', '.']).next().unwrap_or(name).to_lowercase();
        let service = name.rsplit_once('/').map_or("", |(service, _)| service);
        let is_alike =
            |other: &&Method| other.name().to_lowercase() == method || other.service() == service;
        self.methods().filter(is_alike).take(SHOWN_MAX).map(|it| it.full_name.clone()).collect()
    }
}

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    name: String,
    docs: String,
    methods: Vec<Method>,
}

impl Service {
    fn new(service: ServiceDescription) -> Result<Service, CatalogError> {
        let ServiceDescription { name, docs, methods } = service;
        let methods = methods.into_iter().map(|method| Method::new(&name, method));
        let methods = methods.collect::<Result<_, _>>()?;
        Ok(Service { name, docs, methods })
    }

    /// Its name: `package.Service`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The doc comment of its trait.
    #[must_use]
    pub fn docs(&self) -> &str {
        &self.docs
    }

    /// Its methods, in the order of the trait.
    #[must_use]
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }
}

/// A method.
#[derive(Clone, Debug)]
pub struct Method {
    full_name: String,
    /// Of the name.
    service_len: usize,
    docs: String,
    input: Described,
    output: Described,
    is_one_way: bool,
    is_idempotent: bool,
    deadline: Option<Duration>,
}

impl Method {
    fn new(service: &str, method: MethodDescription) -> Result<Method, CatalogError> {
        let full_name = format!("{service}/{}", method.name);
        let not_understood = || CatalogError::NotUnderstood { method: full_name.clone() };
        let parse = |text: &str| text.parse::<Described>().map_err(|_| not_understood());
        let (input, output) = (parse(&method.text_in)?, parse(&method.text_out)?);
        if input.parts.len() != 1 || output.parts.len() != 2 {
            return Err(not_understood());
        }
        Ok(Method {
            full_name,
            service_len: service.len(),
            docs: method.docs,
            input,
            output,
            is_one_way: method.is_one_way,
            is_idempotent: method.is_idempotent,
            deadline: method.deadline,
        })
    }

    /// `package.Service/method`.
    #[must_use]
    pub fn full_name(&self) -> &str {
        &self.full_name
    }

    /// The name of its service: `package.Service`.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.full_name[..self.service_len]
    }

    /// The name within its service.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.full_name[self.service_len + 1..]
    }

    /// Its doc comment.
    #[must_use]
    pub fn docs(&self) -> &str {
        &self.docs
    }

    /// What goes in: the argument's type, and those that are in it.
    #[must_use]
    pub fn input(&self) -> &Described {
        &self.input
    }

    /// What comes out: the types of the reply and the error, and those that are in them.
    #[must_use]
    pub fn output(&self) -> &Described {
        &self.output
    }

    /// The type of the argument.
    #[must_use]
    pub fn argument(&self) -> &Type {
        &self.input.parts[0]
    }

    /// The type of the reply.
    #[must_use]
    pub fn reply(&self) -> &Type {
        &self.output.parts[0]
    }

    /// The type of the error; the leaf `never` if there is none.
    #[must_use]
    pub fn error(&self) -> &Type {
        &self.output.parts[1]
    }

    /// Whether it takes or gives a stream.
    #[must_use]
    pub fn has_streams(&self) -> bool {
        self.input.items.is_some() || self.output.items.is_some()
    }

    /// Whether it has no reply.
    #[must_use]
    pub fn is_one_way(&self) -> bool {
        self.is_one_way
    }

    /// Whether running it twice does no harm.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.is_idempotent
    }

    /// How long callers wait unless they say otherwise.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Its signature as Rust has it, and the types in it, for people.
    #[must_use]
    pub fn signature(&self) -> String {
        shown::signature(self)
    }

    /// An argument to begin with, in which everything has a value; but for types of more than some ten thousand values,
    /// which are left out.
    #[must_use]
    pub fn example(&self) -> Value {
        example::example(&self.input, self.argument())
    }

    /// JSON Schema (2020-12) of the argument.
    #[must_use]
    pub fn argument_schema(&self) -> Value {
        schema::schema(&self.input, self.argument())
    }

    /// JSON Schema of the reply.
    #[must_use]
    pub fn reply_schema(&self) -> Value {
        schema::schema(&self.output, self.reply())
    }

    /// JSON Schema of the error, if there is one.
    #[must_use]
    pub fn error_schema(&self) -> Option<Value> {
        (!self.error().is_leaf("never")).then(|| schema::schema(&self.output, self.error()))
    }

    /// The argument as it goes over the wire.
    ///
    /// # Errors
    /// When it is not of the method's type.
    pub fn encode_argument(&self, argument: &Value) -> Result<Vec<u8>, Mismatch> {
        encode::body(&self.input, self.argument(), argument)
    }

    /// An argument as a value, for whoever has it from somebody else; `None` if it is not one of this method.
    #[must_use]
    pub fn decode_argument(&self, argument: &[u8]) -> Option<Value> {
        decode::body(&self.input, self.argument(), argument)
    }

    /// A reply as a value; `None` if it is not one of this method.
    #[must_use]
    pub fn decode_reply(&self, reply: &[u8]) -> Option<Value> {
        decode::body(&self.output, self.reply(), reply)
    }

    /// The same for an error of the handler.
    #[must_use]
    pub fn decode_error(&self, error: &[u8]) -> Option<Value> {
        decode::body(&self.output, self.error(), error)
    }
}

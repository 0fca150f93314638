//! What a server serves.

use std::collections::HashMap;
use std::time::Duration;

use ringcall::reflection::{MethodDescription, ReflectionClient, ServiceDescription};
use ringcall::shapes::{Described, Type};
use ringcall::{BlockOn, CallError, Channel, Codec, IntoOwned, ServiceTable, Streams};
use serde_json::Value;

use crate::{CatalogError, GenericError, Mismatch, decode, encode, example, schema, shown};

/// The services of a server, with what their methods take and give.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    services: Vec<Service>,
    /// Where methods are: their service, and which of that; by their full names.
    places: HashMap<String, (usize, usize)>,
    not_understood: Vec<String>,
}

/// How many services are asked for.
const SERVICES_MAX: usize = 4096;
/// Of all that is said of them.
const BYTES_MAX: u64 = 16 << 20;

impl Catalog {
    /// Asks the server, which has to offer [`ringcall::reflection`].
    ///
    /// # Errors
    /// When it does not say, or has more than 4096 services, or says more than 16 MiB of them.
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
        let mut left = BYTES_MAX;
        for name in &names {
            match reflection.describe(name).await {
                Ok(service) => {
                    let service = service.to_owned();
                    left = left.checked_sub(bytes(&service)).ok_or(CatalogError::TooLarge)?;
                    services.push(service);
                }
                // It was taken away in the meantime.
                Err(CallError::App(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Catalog::read(services))
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

    /// Of what a server has said before, or somebody else has. What [cannot be understood](Self::not_understood) of it is left
    /// out.
    #[must_use]
    pub fn read(services: impl IntoIterator<Item = ServiceDescription>) -> Catalog {
        let mut catalog = Catalog::default();
        for service in services {
            let service = Service::new(service, &mut catalog.not_understood);
            for (place, method) in service.methods.iter().enumerate() {
                let place = (catalog.services.len(), place);
                catalog.places.entry(method.full_name.clone()).or_insert(place);
            }
            catalog.services.push(service);
        }
        catalog
    }

    /// Of services whose tables this program has: `QuotesClient::service_table()`.
    #[must_use]
    pub fn of(tables: &[&ServiceTable]) -> Catalog {
        Catalog::read(tables.iter().map(|table| ServiceDescription::from(*table)))
    }

    /// The services, in the order in which the server has them.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The full names of methods of which the server says what cannot be understood, which are left out: those of a newer
    /// server, perhaps.
    #[must_use]
    pub fn not_understood(&self) -> &[String] {
        &self.not_understood
    }

    /// A method by its full name, `package.Service/method`.
    #[must_use]
    pub fn method(&self, full_name: &str) -> Option<&Method> {
        let &(service, place) = self.places.get(full_name)?;
        Some(&self.services[service].methods[place])
    }

    /// The same, for whoever wants to say which methods may have been meant.
    ///
    /// # Errors
    /// [`GenericError::NoSuchMethod`], or [`GenericError::NotUnderstood`].
    pub fn find(&self, full_name: &str) -> Result<&Method, GenericError> {
        self.method(full_name).ok_or_else(|| {
            let method = full_name.to_owned();
            match self.not_understood.contains(&method) {
                true => GenericError::NotUnderstood { method },
                false => GenericError::NoSuchMethod { method, alike: self.alike(full_name) },
            }
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

/// How much a description takes, about. Each method has the name of its service in its own.
fn bytes(service: &ServiceDescription) -> u64 {
    let ServiceDescription { name, docs, methods } = service;
    let len = |texts: &[&String]| texts.iter().map(|text| text.len() as u64).sum::<u64>();
    let of_method = |method: &MethodDescription| {
        let MethodDescription { name: own, docs, text_in, text_out, .. } = method;
        size_of::<MethodDescription>() as u64 + len(&[name, own, docs, text_in, text_out])
    };
    methods.iter().map(of_method).fold(len(&[name, docs]), u64::saturating_add)
}

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    name: String,
    docs: String,
    methods: Vec<Method>,
}

impl Service {
    fn new(service: ServiceDescription, not_understood: &mut Vec<String>) -> Service {
        let ServiceDescription { name, docs, methods: described } = service;
        let mut methods = Vec::new();
        for method in described {
            match Method::new(&name, method) {
                Ok(method) => methods.push(method),
                Err(full_name) => not_understood.push(full_name),
            }
        }
        Service { name, docs, methods }
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

    /// Its methods, in the order of the trait, but for those that are [not understood](Catalog::not_understood).
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
    /// Its full name if it is not understood.
    fn new(service: &str, method: MethodDescription) -> Result<Method, String> {
        let full_name = format!("{service}/{}", method.name);
        let parse = |text: &str, parts: usize| {
            text.parse().ok().filter(|described: &Described| described.parts.len() == parts)
        };
        let described = parse(&method.text_in, 1).zip(parse(&method.text_out, 2));
        let Some((input, output)) = described else { return Err(full_name) };
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

    /// What the argument goes in: MessagePack, or bytes as they are, if that is what the method takes.
    #[must_use]
    pub fn argument_codec(&self) -> Codec {
        codec(self.argument())
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
        self.streams().is_some()
    }

    /// Which sides send a stream, if any does.
    #[must_use]
    pub fn streams(&self) -> Option<Streams> {
        match (self.items_in(), self.items_out()) {
            (None, None) => None,
            (Some(_), None) => Some(Streams::In),
            (None, Some(_)) => Some(Streams::Out),
            (Some(_), Some(_)) => Some(Streams::Both),
        }
    }

    /// The type of the items that it takes, if it takes a stream.
    #[must_use]
    pub fn items_in(&self) -> Option<&Type> {
        self.input.items.as_ref()
    }

    /// The type of the items that it gives, if it gives a stream.
    #[must_use]
    pub fn items_out(&self) -> Option<&Type> {
        self.output.items.as_ref()
    }

    /// What an item of the caller goes in: MessagePack, or bytes as they are, if that is what the method takes.
    #[must_use]
    pub fn item_codec(&self) -> Codec {
        self.items_in().map_or(Codec::MESSAGEPACK, codec)
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

    /// An argument to begin with, in which everything has a value; but for types of more than some ten thousand values or
    /// 1 MiB, which are left out. It is of the method's type, or null where there is no such argument, or only larger ones.
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

    /// JSON Schema of the items that it takes, if it takes a stream.
    #[must_use]
    pub fn items_in_schema(&self) -> Option<Value> {
        self.items_in().map(|items| schema::schema(&self.input, items))
    }

    /// JSON Schema of the items that it gives, if it gives a stream.
    #[must_use]
    pub fn items_out_schema(&self) -> Option<Value> {
        self.items_out().map(|items| schema::schema(&self.output, items))
    }

    /// An item to begin with, see [`example`](Self::example); null if the method takes none.
    #[must_use]
    pub fn example_item(&self) -> Value {
        self.items_in().map_or(Value::Null, |items| example::example(&self.input, items))
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

    /// An item of the caller as it goes over the wire.
    ///
    /// # Errors
    /// When it is not of the type of the method's items, or the method takes none.
    pub fn encode_item(&self, item: &Value) -> Result<Vec<u8>, Mismatch> {
        match self.items_in() {
            Some(items) => encode::body(&self.input, items, item),
            None => Err(Mismatch {
                path: String::new(),
                reason: format!("{} takes no items", self.full_name),
            }),
        }
    }

    /// An item of the server as a value; `None` if it is not one of this method.
    #[must_use]
    pub fn decode_item(&self, item: &[u8]) -> Option<Value> {
        decode::body(&self.output, self.items_out()?, item)
    }

    /// The same for an error of the handler.
    #[must_use]
    pub fn decode_error(&self, error: &[u8]) -> Option<Value> {
        decode::body(&self.output, self.error(), error)
    }
}

fn codec(ty: &Type) -> Codec {
    if ty.is_leaf("raw") { Codec::RAW } else { Codec::MESSAGEPACK }
}

//! tonic, with prost.
//!
//! Tuned: nodelay; windows that no message fills; frames that hold a whole large message; as many streams
//! as calls; `Bytes` as the field, so that nothing is copied out of the frame; larger codec buffers do
//! not help. Many servers: its balanced channel, over connections with the same settings.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::try_join_all;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig,
};
use tonic::{Request, Response, Status};

use super::{IN_FLIGHT_MAX, MESSAGE_BYTES_MAX, listen};
use crate::Result;
use crate::cases::Case;
use crate::certificates::Certificates;
use crate::meter::{self, Caller, Measured, Watch, work};
use crate::payload::{self, Payload, compare, compare_bytes};
use crate::subjects::skip;
use echo_client::EchoClient;
use echo_server::{Echo, EchoServer};

const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;
const FRAME_BYTES_MAX: u32 = (2 << 20) - 1;

// What a `.proto` file would say: `build.rs` has the service.

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Blob {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Leg {
    #[prost(string, tag = "1")]
    symbol: String,
    #[prost(string, tag = "2")]
    venue: String,
    #[prost(int32, tag = "3")]
    ratio: i32,
    #[prost(double, tag = "4")]
    price: f64,
    #[prost(int64, tag = "5")]
    size: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Order {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(string, tag = "2")]
    account: String,
    #[prost(string, tag = "3")]
    symbol: String,
    #[prost(bool, tag = "4")]
    is_buy: bool,
    #[prost(double, tag = "5")]
    price: f64,
    #[prost(message, repeated, tag = "6")]
    legs: Vec<Leg>,
    #[prost(string, repeated, tag = "7")]
    notes: Vec<String>,
}

include!(concat!(env!("OUT_DIR"), "/versus.Echo.rs"));

struct Mirror;

#[tonic::async_trait]
impl Echo for Mirror {
    async fn blob(&self, request: Request<Blob>) -> Result<Response<Blob>, Status> {
        Ok(Response::new(Blob { data: request.into_inner().data }))
    }

    async fn order(&self, request: Request<Order>) -> Result<Response<Order>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    type ItemsStream = Again;

    async fn items(&self, request: Request<Blob>) -> Result<Response<Again>, Status> {
        Ok(Response::new(Again(request.into_inner().data)))
    }
}

/// The same blob again and again, each time a new one.
pub(super) struct Again(Bytes);

impl futures::Stream for Again {
    type Item = Result<Blob, Status>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(Some(Ok(Blob { data: Bytes::copy_from_slice(&self.0) })))
    }
}

pub(super) async fn serve(servers: usize, tls: bool) -> Result<()> {
    let accepting = listen(servers).await?.into_iter().map(|listener| accept(listener, tls));
    try_join_all(accepting).await?;
    Ok(())
}

async fn accept(listener: TcpListener, tls: bool) -> Result<()> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let service = EchoServer::new(Mirror)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let mut builder = Server::builder();
    if tls {
        let Certificates { certificate, key } = Certificates::given()?;
        let identity = Identity::from_pem(certificate, key);
        builder = builder.tls_config(ServerTlsConfig::new().identity(identity))?;
    }
    builder
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(IN_FLIGHT_MAX as u32)
        .add_service(service)
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}

fn endpoint(server: SocketAddr, tls: bool) -> Result<Endpoint> {
    let scheme = if tls { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{server}"))?;
    if tls {
        let authority = Certificate::from_pem(Certificates::given()?.certificate);
        let config = ClientTlsConfig::new().ca_certificate(authority).domain_name("localhost");
        endpoint = endpoint.tls_config(config)?;
    }
    Ok(endpoint
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES_MAX)
        .buffer_size(IN_FLIGHT_MAX))
}

/// To one server, or to all, of which its balancer chooses. That connects when it is first called.
async fn connect(servers: &[SocketAddr], tls: bool) -> Result<EchoClient<Channel>> {
    let channel = match *servers {
        [server] => endpoint(server, tls)?.connect().await?,
        _ => {
            let endpoints = servers.iter().map(|&server| endpoint(server, tls));
            Channel::balance_list(endpoints.collect::<Result<Vec<_>>>()?.into_iter())
        }
    };
    Ok(EchoClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX))
}

pub(super) async fn call(
    case: &Case,
    tls: bool,
    servers: &[SocketAddr],
    watch: Watch,
) -> Result<Measured> {
    let mut clients = Vec::new();
    for _ in 0..case.connections / case.servers {
        clients.push(connect(servers, tls).await?);
    }
    meter::begin(case, watch)?;
    if case.is_stream {
        receive(case, clients.remove(0)).await?;
        return meter::finish();
    }
    let tasks = (0..case.calls_at_a_time()).map(|index| {
        let client = clients[index % clients.len()].clone();
        let blob = |data: Vec<u8>| Blob { data: data.into() };
        let payload = Payload::new(case.message, index, blob, Order::from);
        tokio::spawn(work(EchoCaller { client, payload }, index))
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await?;
    }
    meter::finish()
}

/// Takes the items of one stream until the time is over.
async fn receive(case: &Case, mut client: EchoClient<Channel>) -> Result<()> {
    let blob = |data: Vec<u8>| Blob { data: data.into() };
    let Payload::Blobs([blob, _]) = Payload::new(case.message, 0, blob, drop) else {
        return skip("a stream of blobs");
    };
    let mut stream = client.items(blob.clone()).await?.into_inner();
    let mut items = meter::Items::new();
    while !meter::is_over() {
        let item = stream.message().await?.ok_or_else(meter::mismatch)?;
        compare_bytes(&item.data, &blob.data)?;
        items.arrived();
    }
    Ok(())
}

struct EchoCaller {
    client: EchoClient<Channel>,
    payload: Payload<Blob, Order>,
}

impl Caller for EchoCaller {
    async fn call(&mut self, turn: usize) -> Result<()> {
        match &self.payload {
            Payload::Blobs(blobs) => {
                let reply = self.client.blob(blobs[turn].clone()).await?.into_inner();
                compare_bytes(&reply.data, &blobs[turn].data)
            }
            Payload::Orders(orders) => {
                let reply = self.client.order(orders[turn].clone()).await?.into_inner();
                compare(&reply, &orders[turn])
            }
        }
    }
}

impl From<payload::Order> for Order {
    fn from(order: payload::Order) -> Order {
        let payload::Order { id, account, symbol, is_buy, price, legs, notes } = order;
        let legs = legs.into_iter().map(|leg| {
            let payload::Leg { symbol, venue, ratio, price, size } = leg;
            Leg { symbol, venue, ratio, price, size }
        });
        Order { id, account, symbol, is_buy, price, legs: legs.collect(), notes }
    }
}

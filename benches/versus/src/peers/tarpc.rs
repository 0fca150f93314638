//! tarpc over TCP with bincode.
//!
//! Tuned: nodelay; frames, requests and responses in flight beyond their defaults; `Bytes` as the field,
//! which serde writes as bytes and not one by one. Many servers take turns, by its stub for that.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use tarpc::client::stub::load_balance::RoundRobin;
use tarpc::serde_transport::{self, Transport};
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::tokio_util::codec::LengthDelimitedCodec;
use tarpc::{client, context, server};
use tokio::net::{TcpListener, TcpStream};

use super::{IN_FLIGHT_MAX, MESSAGE_BYTES_MAX, listen};
use crate::Result;
use crate::cases::Case;
use crate::meter::{self, Caller, Measured, Watch, work};
use crate::payload::{Order, Payload, compare, compare_bytes};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Blob {
    data: Bytes,
}

#[tarpc::service]
trait Echo {
    async fn blob(blob: Blob) -> Blob;
    async fn order(order: Order) -> Order;
}

#[derive(Clone)]
struct Mirror;

impl Echo for Mirror {
    async fn blob(self, _: context::Context, blob: Blob) -> Blob {
        Blob { data: blob.data }
    }

    async fn order(self, _: context::Context, order: Order) -> Order {
        order
    }
}

fn transport<Item, SinkItem>(
    socket: TcpStream,
) -> Result<Transport<TcpStream, Item, SinkItem, Bincode<Item, SinkItem>>>
where
    Item: for<'de> Deserialize<'de>,
    SinkItem: Serialize,
{
    socket.set_nodelay(true)?;
    let mut codec = LengthDelimitedCodec::builder();
    codec.max_frame_length(MESSAGE_BYTES_MAX);
    Ok(serde_transport::new(codec.new_framed(socket), Bincode::default()))
}

pub(super) async fn serve(servers: usize) -> Result<()> {
    try_join_all(listen(servers).await?.into_iter().map(accept)).await?;
    Ok(())
}

async fn accept(listener: TcpListener) -> Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        let config = server::Config { pending_response_buffer: IN_FLIGHT_MAX };
        let channel = BaseChannel::new(config, transport(socket)?);
        tokio::spawn(channel.execute(Mirror.serve()).for_each(|response| async {
            tokio::spawn(response);
        }));
    }
}

type Connection = client::Channel<EchoRequest, EchoResponse>;

async fn connect(server: SocketAddr) -> Result<Connection> {
    let mut config = client::Config::default();
    config.max_in_flight_requests = IN_FLIGHT_MAX;
    config.pending_request_buffer = IN_FLIGHT_MAX;
    let socket = TcpStream::connect(server).await?;
    Ok(client::new(config, transport(socket)?).spawn())
}

pub(super) async fn call(case: &Case, servers: &[SocketAddr], watch: Watch) -> Result<Measured> {
    let mut connections: Vec<Connection> = Vec::new();
    for index in 0..case.connections {
        connections.push(connect(servers[index % servers.len()]).await?);
    }
    meter::begin(case, watch)?;
    let callers = 0..case.calls_at_a_time();
    let tasks: Vec<_> = if case.servers > 1 {
        let client = EchoClient::from(RoundRobin::new(connections));
        let caller = |index| EchoCaller::new(client.clone(), case, index);
        callers.map(|index| tokio::spawn(work(caller(index), index))).collect()
    } else {
        let client =
            |index: usize| EchoClient::from(connections[index % connections.len()].clone());
        let caller = |index| EchoCaller::new(client(index), case, index);
        callers.map(|index| tokio::spawn(work(caller(index), index))).collect()
    };
    for task in tasks {
        task.await?;
    }
    meter::finish()
}

struct EchoCaller<S> {
    client: EchoClient<S>,
    payload: Payload<Blob, Order>,
}

impl<S> EchoCaller<S> {
    fn new(client: EchoClient<S>, case: &Case, index: usize) -> EchoCaller<S> {
        let blob = |data: Vec<u8>| Blob { data: data.into() };
        EchoCaller { client, payload: Payload::new(case.message, index, blob, |order| order) }
    }
}

impl<S: EchoStub> Caller for EchoCaller<S> {
    async fn call(&mut self, turn: usize) -> Result<()> {
        let context = context::current();
        match &self.payload {
            Payload::Blobs(blobs) => {
                let reply = self.client.blob(context, blobs[turn].clone()).await?;
                compare_bytes(&reply.data, &blobs[turn].data)
            }
            Payload::Orders(orders) => {
                compare(&self.client.order(context, orders[turn].clone()).await?, &orders[turn])
            }
        }
    }
}

//! tarpc over TCP with bincode.
//!
//! Tuned: nodelay; frames, requests and responses in flight beyond their defaults; `Bytes` as the field,
//! which serde writes as bytes and not one by one.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tarpc::serde_transport::{self, Transport};
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::tokio_util::codec::LengthDelimitedCodec;
use tarpc::{client, context, server};
use tokio::net::{TcpListener, TcpStream};

use super::{IN_FLIGHT_MAX, MESSAGE_BYTES_MAX, TRANSPORT};
use crate::Result;
use crate::cases::Case;
use crate::meter::{self, Caller, Measured, Watch, work};
use crate::payload::{Order, Payload, compare, compare_bytes};
use crate::subjects::announce;

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

pub(super) async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(listener.local_addr()?, TRANSPORT)?;
    loop {
        let (socket, _) = listener.accept().await?;
        let config = server::Config { pending_response_buffer: IN_FLIGHT_MAX };
        let channel = BaseChannel::new(config, transport(socket)?);
        tokio::spawn(channel.execute(Mirror.serve()).for_each(|response| async {
            tokio::spawn(response);
        }));
    }
}

pub(super) async fn call(case: &Case, server: SocketAddr, watch: Watch) -> Result<Measured> {
    let mut clients = Vec::new();
    for _ in 0..case.connections {
        let mut config = client::Config::default();
        config.max_in_flight_requests = IN_FLIGHT_MAX;
        config.pending_request_buffer = IN_FLIGHT_MAX;
        let socket = TcpStream::connect(server).await?;
        clients.push(EchoClient::new(config, transport(socket)?).spawn());
    }
    meter::begin(case, watch)?;
    let tasks = (0..case.calls_at_a_time()).map(|index| {
        let client = clients[index % clients.len()].clone();
        let blob = |data: Vec<u8>| Blob { data: data.into() };
        let payload = Payload::new(case.message, index, blob, |order| order);
        tokio::spawn(work(EchoCaller { client, payload }, index))
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await?;
    }
    meter::finish()
}

struct EchoCaller {
    client: EchoClient,
    payload: Payload<Blob, Order>,
}

impl Caller for EchoCaller {
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

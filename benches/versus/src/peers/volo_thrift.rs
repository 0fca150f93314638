//! volo-thrift, with its default codec (TTHeader over framed binary).
//!
//! Tuned: multiplexing, without which a connection has one call in flight; one call before all others,
//! so that they find its connection instead of opening their own; a timeout that no call reaches. Nodelay
//! is its default.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use volo::net::Address;
use volo::net::incoming::DefaultIncoming;
use volo_thrift::ServerError;

use super::TRANSPORT;
use super::generated::echo_thrift::echo::{
    Blob, Echo, EchoClient, EchoClientBuilder, EchoServer, Leg, Order,
};
use crate::Result;
use crate::cases::Case;
use crate::meter::{self, Caller, Measured, Watch, work};
use crate::payload::{self, Payload, compare, compare_bytes};
use crate::subjects::announce;

struct Mirror;

impl Echo for Mirror {
    async fn blob(&self, blob: Blob) -> Result<Blob, ServerError> {
        Ok(Blob { data: blob.data })
    }

    async fn order(&self, order: Order) -> Result<Order, ServerError> {
        Ok(order)
    }
}

pub(super) async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(listener.local_addr()?, TRANSPORT)?;
    let server = EchoServer::new(Mirror).multiplex(true);
    server.run(DefaultIncoming::from(listener)).await
}

pub(super) async fn call(case: &Case, server: SocketAddr, watch: Watch) -> Result<Measured> {
    let mut clients = Vec::new();
    for _ in 0..case.connections {
        // Each has a pool of its own, so each has a connection of its own.
        let client = EchoClientBuilder::new("versus")
            .address(Address::Ip(server))
            .multiplex(true)
            .rpc_timeout(Some(Duration::from_secs(10)))
            .read_write_timeout(Some(Duration::from_secs(10)))
            .build();
        client.blob(Blob::default()).await?;
        clients.push(client);
    }
    meter::begin(case, watch)?;
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

struct EchoCaller {
    client: EchoClient,
    payload: Payload<Blob, Order>,
}

impl Caller for EchoCaller {
    async fn call(&mut self, turn: usize) -> Result<()> {
        match &self.payload {
            Payload::Blobs(blobs) => {
                let reply = self.client.blob(blobs[turn].clone()).await?;
                compare_bytes(&reply.data, &blobs[turn].data)
            }
            Payload::Orders(orders) => {
                compare(&self.client.order(orders[turn].clone()).await?, &orders[turn])
            }
        }
    }
}

impl From<payload::Order> for Order {
    fn from(order: payload::Order) -> Order {
        let payload::Order { id, account, symbol, is_buy, price, legs, notes } = order;
        let legs = legs.into_iter().map(|leg| {
            let payload::Leg { symbol, venue, ratio, price, size } = leg;
            Leg { symbol: symbol.into(), venue: venue.into(), ratio, price, size }
        });
        let (account, symbol) = (account.into(), symbol.into());
        let notes = notes.into_iter().map(Into::into).collect();
        Order { id, account, symbol, is_buy, price, legs: legs.collect(), notes }
    }
}

//! volo-thrift, with its default codec (TTHeader over framed binary).
//!
//! Tuned: multiplexing, without which a connection has one call in flight; one call to each server before
//! all others, so that they find its connection instead of opening their own; a timeout that no call reaches. Nodelay
//! is its default. Many servers: a list that does not change, and its balancer, which chooses by chance.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::try_join_all;
use volo::discovery::StaticDiscover;
use volo::loadbalance::random::WeightedRandomBalance;
use volo::net::Address;
use volo::net::incoming::DefaultIncoming;
use volo_thrift::ServerError;
use volo_thrift::client::CallOpt;

use super::generated::echo_thrift::echo::{
    Blob, Echo, EchoClient, EchoClientBuilder, EchoServer, Leg, Order,
};
use super::listen;
use crate::Result;
use crate::cases::Case;
use crate::meter::{self, Caller, Measured, Watch, work};
use crate::payload::{self, Payload, compare, compare_bytes};

struct Mirror;

impl Echo for Mirror {
    async fn blob(&self, blob: Blob) -> Result<Blob, ServerError> {
        Ok(Blob { data: blob.data })
    }

    async fn order(&self, order: Order) -> Result<Order, ServerError> {
        Ok(order)
    }
}

pub(super) async fn serve(servers: usize) -> Result<()> {
    let serving = listen(servers).await?.into_iter().map(|listener| {
        EchoServer::new(Mirror).multiplex(true).run(DefaultIncoming::from(listener))
    });
    try_join_all(serving).await?;
    Ok(())
}

/// A client of one server, or of all, of which its balancer chooses by chance. It has a pool of its own, and so a
/// connection of its own to each.
async fn connect(servers: &[SocketAddr]) -> Result<EchoClient> {
    let builder = EchoClientBuilder::new("versus")
        .multiplex(true)
        .rpc_timeout(Some(Duration::from_secs(10)))
        .read_write_timeout(Some(Duration::from_secs(10)));
    let client = match *servers {
        [server] => builder.address(Address::Ip(server)).build(),
        _ => {
            let discover = StaticDiscover::from(servers.to_vec());
            let balance = WeightedRandomBalance::with_discover(&discover);
            builder.discover(discover).load_balance(balance).build()
        }
    };
    for &server in servers {
        let address = Some(Address::Ip(server));
        let to_it = CallOpt { address, ..CallOpt::default() };
        client.clone().with_callopt(to_it).blob(Blob::default()).await?;
    }
    Ok(client)
}

pub(super) async fn call(case: &Case, servers: &[SocketAddr], watch: Watch) -> Result<Measured> {
    let mut clients = Vec::new();
    for _ in 0..case.connections / case.servers {
        clients.push(connect(servers).await?);
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

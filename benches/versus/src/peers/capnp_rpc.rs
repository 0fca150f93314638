//! capnp-rpc, a two-party network over TCP.
//!
//! Tuned: nodelay; buffers around both streams, as its documentation advises; a reader's limit that no
//! message reaches. A request is filled field by field, a reply is copied from the reader.

use std::net::SocketAddr;
use std::rc::Rc;

use capnp::message::ReaderOptions;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, new_client, twoparty};
use futures::future::try_join_all;
use futures::io::{BufReader, BufWriter, ReadHalf};
use futures::{AsyncReadExt, FutureExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::generated::echo_capnp::{echo, leg, order};
use super::{MESSAGE_BYTES_MAX, listen};
use crate::Result;
use crate::cases::Case;
use crate::meter::{self, Caller, Measured, Watch, mismatch, work};
use crate::payload::{Leg, Order, Payload, compare_bytes};

const BUFFER_BYTES: usize = 64 << 10;

struct Mirror;

impl echo::Server for Mirror {
    async fn blob(
        self: Rc<Self>,
        params: echo::BlobParams,
        mut results: echo::BlobResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_data(params.get()?.get_data()?);
        Ok(())
    }

    async fn order(
        self: Rc<Self>,
        params: echo::OrderParams,
        mut results: echo::OrderResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_order(params.get()?.get_order()?)
    }
}

type Network = twoparty::VatNetwork<BufReader<ReadHalf<Compat<TcpStream>>>>;

fn network(socket: TcpStream, side: Side) -> Result<Box<Network>> {
    socket.set_nodelay(true)?;
    let (reader, writer) = socket.compat().split();
    let mut options = ReaderOptions::new();
    options.traversal_limit_in_words(Some(MESSAGE_BYTES_MAX));
    Ok(Box::new(twoparty::VatNetwork::new(
        BufReader::with_capacity(BUFFER_BYTES, reader),
        BufWriter::with_capacity(BUFFER_BYTES, writer),
        side,
        options,
    )))
}

pub(super) async fn serve(servers: usize) -> Result<()> {
    let accepting = listen(servers).await?.into_iter().map(accept);
    LocalSet::new().run_until(try_join_all(accepting)).await?;
    Ok(())
}

async fn accept(listener: TcpListener) -> Result<()> {
    let echo: echo::Client = new_client(Mirror);
    loop {
        let (socket, _) = listener.accept().await?;
        let system = RpcSystem::new(network(socket, Side::Server)?, Some(echo.clone().client));
        spawn_local(system.map(drop));
    }
}

pub(super) async fn call(case: &Case, servers: &[SocketAddr], watch: Watch) -> Result<Measured> {
    LocalSet::new().run_until(call_locally(case, servers, watch)).await
}

async fn call_locally(case: &Case, servers: &[SocketAddr], watch: Watch) -> Result<Measured> {
    let mut clients = Vec::new();
    for _ in 0..case.connections {
        let socket = TcpStream::connect(servers[0]).await?;
        let mut system = RpcSystem::new(network(socket, Side::Client)?, None);
        clients.push(system.bootstrap::<echo::Client>(Side::Server));
        spawn_local(system.map(drop));
    }
    meter::begin(case, watch)?;
    let tasks = (0..case.calls_at_a_time()).map(|index| {
        let client = clients[index % clients.len()].clone();
        let payload = Payload::new(case.message, index, |data| data, |order| order);
        spawn_local(work(EchoCaller { client, payload }, index))
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await?;
    }
    meter::finish()
}

struct EchoCaller {
    client: echo::Client,
    payload: Payload<Vec<u8>, Order>,
}

impl Caller for EchoCaller {
    async fn call(&mut self, turn: usize) -> Result<()> {
        match &self.payload {
            Payload::Blobs(blobs) => {
                let mut request = self.client.blob_request();
                request.get().set_data(&blobs[turn]);
                let reply = request.send().promise.await?;
                compare_bytes(reply.get()?.get_data()?, &blobs[turn])
            }
            Payload::Orders(orders) => {
                let mut request = self.client.order_request();
                fill(request.get().init_order(), &orders[turn]);
                let reply = request.send().promise.await?;
                match is_same(reply.get()?.get_order()?, &orders[turn])? {
                    true => Ok(()),
                    false => Err(mismatch()),
                }
            }
        }
    }
}

fn fill(mut builder: order::Builder<'_>, order: &Order) {
    builder.set_id(order.id);
    builder.set_account(&order.account);
    builder.set_symbol(&order.symbol);
    builder.set_is_buy(order.is_buy);
    builder.set_price(order.price);
    let mut legs = builder.reborrow().init_legs(order.legs.len() as u32);
    for (index, leg) in (0..).zip(&order.legs) {
        let mut builder = legs.reborrow().get(index);
        builder.set_symbol(&leg.symbol);
        builder.set_venue(&leg.venue);
        builder.set_ratio(leg.ratio);
        builder.set_price(leg.price);
        builder.set_size(leg.size);
    }
    let mut notes = builder.init_notes(order.notes.len() as u32);
    for (index, note) in (0..).zip(&order.notes) {
        notes.set(index, note);
    }
}

fn is_same(reply: order::Reader<'_>, sent: &Order) -> Result<bool, capnp::Error> {
    let (legs, notes) = (reply.get_legs()?, reply.get_notes()?);
    let mut is_same = reply.get_id() == sent.id
        && reply.get_account()? == sent.account
        && reply.get_symbol()? == sent.symbol
        && reply.get_is_buy() == sent.is_buy
        && reply.get_price() == sent.price
        && legs.len() as usize == sent.legs.len()
        && notes.len() as usize == sent.notes.len();
    for (reply, sent) in legs.iter().zip(&sent.legs) {
        is_same &= is_same_leg(reply, sent)?;
    }
    for (reply, sent) in notes.iter().zip(&sent.notes) {
        is_same &= reply? == *sent;
    }
    Ok(is_same)
}

fn is_same_leg(reply: leg::Reader<'_>, sent: &Leg) -> Result<bool, capnp::Error> {
    Ok(reply.get_symbol()? == sent.symbol
        && reply.get_venue()? == sent.venue
        && reply.get_ratio() == sent.ratio
        && reply.get_price() == sent.price
        && reply.get_size() == sent.size)
}

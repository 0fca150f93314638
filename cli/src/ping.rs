//! `ringcall ping`.

use std::time::Duration;

use ringcall::{BlockingClient, CallError, Codec, UntypedCall};
use serde_json::json;

use crate::args::Ping;
use crate::call::busy;
use crate::connect::{connect_on, now, shard, since};
use crate::exit::{Exit, Problem};
use crate::reach::in_registry;
use crate::screen::Screen;
use crate::text::{one_line, time};

/// The server answers it itself, beside calls that wait. No table has a row of this number: nothing but the header comes
/// back.
const METHOD: &str = "ringcall.Methods/page";
const NO_ROW: [u8; 8] = u64::MAX.to_le_bytes();

pub(crate) fn run(args: &Ping, screen: &mut Screen<'_>) -> Result<Exit, Problem> {
    if in_registry(&args.server.address).is_some() {
        return Err(Problem::misused("`ping` is for one server, not for a service of a registry"));
    }
    let shard = shard(&args.server)?;
    let start = now();
    let client = connect_on(&shard, &args.server)?;
    let connected = since(start);
    let client = BlockingClient::new(shard, client);
    let transport = client.transport().clone();
    if !args.server.json {
        let address = one_line(&args.server.address);
        screen.line(&format!("{address} speaks ringcall; connected in {}", time(connected)))?;
        screen.line(&format!("transport  {transport}"))?;
    }
    let (mut trips, mut load) = (Vec::new(), 0);
    for number in 1..=args.count {
        let start = now();
        load = round_trip(&client)?;
        let trip = since(start);
        if !args.server.json {
            screen.line(&format!("{number:<9}  {}", time(trip)))?;
        }
        trips.push(trip);
    }
    let (min, mean, max) = summary(&trips);
    if args.server.json {
        screen.json(&json!({
            "address": args.server.address,
            "transport": { "name": transport.name, "reason": transport.reason },
            "connected_us": us(connected),
            "round_trips_us": trips.iter().map(|trip| us(*trip)).collect::<Vec<_>>(),
            "min_us": us(min), "mean_us": us(mean), "max_us": us(max),
            "load": f64::from(load) / 1000.0,
        }))?;
        return Ok(Exit::Done);
    }
    screen.line(&format!("min {}, mean {}, max {}", time(min), time(mean), time(max)))?;
    screen.line(&format!("load       {}", busy(load)))?;
    Ok(Exit::Done)
}

/// Says how busy the server is.
fn round_trip(client: &BlockingClient) -> Result<u16, Problem> {
    let call = UntypedCall::new(client, METHOD, Codec::RAW, NO_ROW.to_vec());
    let reply = call.map_err(Problem::misused)?.wait();
    match reply.result {
        // A server that refuses it has answered, too.
        Err(CallError::Failed(failure)) if failure.status().is_none() => {
            Err(Problem::call(METHOD, failure))
        }
        _ => Ok(reply.load),
    }
}

fn summary(trips: &[Duration]) -> (Duration, Duration, Duration) {
    let min = trips.iter().min().copied().unwrap_or_default();
    let max = trips.iter().max().copied().unwrap_or_default();
    let count = u32::try_from(trips.len()).unwrap_or(u32::MAX).max(1);
    (min, trips.iter().sum::<Duration>() / count, max)
}

fn us(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

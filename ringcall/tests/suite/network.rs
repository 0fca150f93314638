//! What a network does to connections, by the kernel's own means: in a network namespace, alone in its process.

use std::process::Command;

use crate::alone::{self, is_alone, only};
use crate::common::{KitchenClient, Pair, Socket, over_every_pair, say};
use ringcall::Bytes;

/// Slower than what is sent, and with hardly any queue: what does not fit is lost. As long as packets are anywhere.
const NARROW: [&str; 2] = [
    "ip link set lo up mtu 1500",
    "tc qdisc add dev lo root tbf rate 32mbit burst 4000 limit 12000",
];

/// Runs one of `ip` and `tc`, and says what is missing if it cannot be.
fn command(line: &str) -> Result<String, String> {
    let (program, arguments) = line.split_once(' ').expect("it has arguments");
    let output = Command::new(program).args(arguments.split(' ')).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(said(&output.stdout)),
        false => Err(format!("{line}: {}", said(&output.stderr))),
    }
}

/// How many packets the narrow link has lost.
fn lost() -> u64 {
    let shown = command("tc -s qdisc show dev lo").expect("it could be set");
    let after = shown.split_once("dropped ").map(|(_, rest)| rest);
    let count = after.and_then(|rest| rest.split(',').next()?.parse().ok());
    count.unwrap_or_else(|| panic!("no count: {shown}"))
}

fn bodies_come_back(pair: Pair) {
    let (server, _) = pair.serve();
    let kitchen: KitchenClient<_> = pair.kitchen(&server);
    for len in [0, 100, 70_000, 1 << 20] {
        let body: Bytes = (0..len).map(|i| (i % 251) as u8).collect();
        let calls = [(); 2].map(|()| kitchen.raw(&body));
        for call in calls {
            assert!(call.wait().unwrap()[..] == body[..], "{len} bytes");
        }
    }
}

#[test]
fn e24_a_narrow_link_that_loses_packets_loses_nothing() {
    if !is_alone() {
        let test = only(module_path!(), "e24_a_narrow_link_that_loses_packets_loses_nothing");
        let mut alone = Command::new("unshare");
        alone.args(["--user", "--map-root-user", "--net"]).arg(std::env::current_exe().unwrap());
        let Ok(ran) = alone::run(alone.args(test)) else {
            return say(format_args!("skipped: no `unshare`"));
        };
        return match ran {
            Err(why) if why.contains("unshare failed") => say(format_args!("skipped: {why}")),
            Err(why) => panic!("{why}"),
            Ok(said) => say(format_args!("{said}")),
        };
    }
    for line in NARROW {
        if let Err(why) = command(line) {
            return say(format_args!("skipped: {why}"));
        }
    }
    over_every_pair(|pair| {
        if pair.socket == Socket::Tcp && pair.server == pair.client {
            let before = lost();
            bodies_come_back(pair);
            assert!(lost() > before, "nothing was lost on the way");
        }
    });
}

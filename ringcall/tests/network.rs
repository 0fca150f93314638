//! What a network does to connections, by the kernel's own means: in a network namespace, alone in its process.

mod common;

use std::process::Command;

use common::{KitchenClient, Pair, Socket, over_every_pair, say};
use ringcall::Bytes;

/// Set in the process that has a network of its own.
const ALONE: &str = "RINGCALL_TEST_ALONE";
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
    if std::env::var_os(ALONE).is_none() {
        let test = "e24_a_narrow_link_that_loses_packets_loses_nothing";
        let program = std::env::current_exe().unwrap();
        let mut alone = Command::new("unshare");
        alone.args(["--user", "--map-root-user", "--net"]).arg(program);
        let output = alone.args([test, "--exact", "--nocapture"]).env(ALONE, "1").output();
        let Ok(output) = output else { return say(format_args!("skipped: no `unshare`")) };
        let all = [&output.stdout[..], &output.stderr[..]].concat();
        let all = String::from_utf8_lossy(&all);
        if all.contains("unshare failed") {
            return say(format_args!("skipped: {all}"));
        }
        assert!(output.status.success() && all.contains("1 passed"), "{all}");
        return say(format_args!("{all}"));
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

//! What this machine offers, what it costs, what to do about it.

use std::fs;
use std::thread;

use ringcall_uring::Features;
use rustix::process::{Resource, getrlimit};

/// One thing that was looked at.
struct Finding {
    what: &'static str,
    is: String,
    /// What it costs as it is and what to do; nothing if it is as good as it can be.
    advice: Option<String>,
}

pub(crate) fn examine() {
    let findings = [
        kernel(),
        io_uring(),
        disabled(),
        locked_memory(),
        descriptors(),
        backlog(),
        congestion(),
        cores(),
    ];
    for Finding { what, is, advice } in findings {
        let mark = if advice.is_some() { '!' } else { ' ' };
        println!("{mark} {what:<20} {is}");
        if let Some(advice) = advice {
            println!("  {:20} {advice}", "");
        }
    }
}

fn kernel() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let mut number = || numbers.next().and_then(Result::ok).unwrap_or(0);
    let version = (number(), number());
    let advice = (version < (6, 1)).then(|| {
        "before 6.1 a ring interrupts its thread for completions; epoll may be as fast. Run 6.1 or newer.".to_owned()
    });
    Finding { what: "kernel", is: release, advice }
}

fn io_uring() -> Finding {
    match Features::probe(Features::ALL) {
        Ok(features) => {
            let missing: Vec<_> = features.missing().collect();
            let advice = (!missing.is_empty()).then(|| {
                format!(
                    "without {}: more system calls or wake-ups. Run a newer kernel.",
                    missing.join(", ")
                )
            });
            let is = if missing.is_empty() { "everything works" } else { "works in part" };
            Finding { what: "io_uring", is: is.to_owned(), advice }
        }
        Err(refusal) => Finding {
            what: "io_uring",
            is: "cannot be used".to_owned(),
            advice: Some(format!(
                "{refusal}. Services run on epoll, which costs system calls when many connections are active."
            )),
        },
    }
}

fn disabled() -> Finding {
    let value = read("/proc/sys/kernel/io_uring_disabled");
    let advice = match value.as_str() {
        "1" => Some(
            "only root and the group of kernel.io_uring_group may use it: `sysctl kernel.io_uring_disabled=0`",
        ),
        "2" => Some("nobody may use it: `sysctl kernel.io_uring_disabled=0`"),
        _ => None,
    };
    Finding { what: "io_uring_disabled", is: value, advice: advice.map(str::to_owned) }
}

fn locked_memory() -> Finding {
    let limit = getrlimit(Resource::Memlock).current;
    let is = limit.map_or("unlimited".to_owned(), |bytes| format!("{} KiB", bytes / 1024));
    let advice = limit.filter(|bytes| *bytes < 1024 * 1024).map(|_| {
        "a ring of a user without rights takes about 100 KiB of it, and is refused otherwise: epoll then. Raise `ulimit -l`.".to_owned()
    });
    Finding { what: "locked memory", is, advice }
}

fn descriptors() -> Finding {
    let limit = getrlimit(Resource::Nofile).current;
    let connections = ringcall_net::connections_max();
    let is = match limit {
        Some(limit) => format!("{limit}, so {connections} connections by default"),
        None => "unlimited".to_owned(),
    };
    let advice = limit.filter(|limit| *limit < 65_536).map(|_| {
        "more connections than that are turned away. Raise `ulimit -n`, set `connections_max`."
            .to_owned()
    });
    Finding { what: "file descriptors", is, advice }
}

fn backlog() -> Finding {
    let value = read("/proc/sys/net/core/somaxconn");
    let advice = value.parse().is_ok_and(|connections: u32| connections < 1024).then(|| {
        "a burst of connections is refused by the kernel: `sysctl net.core.somaxconn=4096`"
            .to_owned()
    });
    Finding { what: "accept backlog", is: value, advice }
}

fn congestion() -> Finding {
    let value = read("/proc/sys/net/ipv4/tcp_congestion_control");
    let idle = read("/proc/sys/net/ipv4/tcp_slow_start_after_idle");
    let advice = (idle == "1").then(|| {
        "after a pause a connection starts slowly again, which large bodies feel: `sysctl net.ipv4.tcp_slow_start_after_idle=0`".to_owned()
    });
    Finding { what: "TCP", is: format!("{value}, slow start after idle: {idle}"), advice }
}

fn cores() -> Finding {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let advice = (cores < 2).then(|| {
        "a spinning shard keeps its peers on the same core from running: park.".to_owned()
    });
    Finding { what: "cores", is: cores.to_string(), advice }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or("unknown".to_owned(), |text| text.trim().to_owned())
}

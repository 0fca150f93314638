//! How large a world is.

use std::time::Duration;

use ringcall_cluster::Settings;

/// How large a world is, and how its clients decide.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Clients.
    pub clients: usize,
    /// Servers: how many calls each works on at a time.
    pub workers: Vec<u32>,
    /// The weight of each in the list.
    pub weights: Vec<u32>,
    /// How long an ordinary call takes at a server.
    pub service: Duration,
    /// How much servers are asked for, of what all can do.
    pub load: f64,
    /// How clients decide.
    pub settings: Settings,
    /// Answers say how busy their server is.
    pub says_load: bool,
    /// Calls that run twice do harm: one in so many may not be made again; none if zero.
    pub every_once: u64,
    /// One in so many is large; none if zero.
    pub every_large: u64,
    /// What chance does.
    pub seed: u64,
}

impl Plan {
    /// A hundred clients and twenty servers with capacities as 1 : 2 : 4, which have six tenths of what they can do to
    /// do. Half of the calls may not be made again.
    #[must_use]
    pub fn hundred() -> Plan {
        Plan::of(100, (0..20).map(|n| 1 << (n % 3)), 0.6)
    }

    /// Ten clients and three hundred servers; otherwise the same.
    #[must_use]
    pub fn wide() -> Plan {
        Plan::of(10, (0..300).map(|n| 1 << (n % 3)), 0.6)
    }

    /// So many clients, and a server for each number of workers, with a weight that says it.
    #[must_use]
    pub fn of(clients: usize, workers: impl IntoIterator<Item = u32>, load: f64) -> Plan {
        let workers: Vec<u32> = workers.into_iter().collect();
        Plan {
            clients,
            weights: workers.iter().map(|workers| workers * 100).collect(),
            workers,
            service: Duration::from_millis(2),
            load,
            settings: Settings::new(),
            says_load: false,
            every_once: 2,
            every_large: 0,
            seed: 1,
        }
    }
}

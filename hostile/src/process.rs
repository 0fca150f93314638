//! The server as a process: started, watched from outside, ended.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use ringcall::{RunningServer, TransportChoice};
use serde::{Deserialize, Serialize};

use crate::live::Live;
use crate::victim::Setting;

/// What the server says first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Started {
    /// Where it listens.
    pub address: String,
    /// The engine that was chosen.
    pub engine: String,
    /// And why.
    pub reason: String,
}

impl Started {
    pub(crate) fn of(server: &RunningServer) -> Started {
        let transport = server.transport();
        Started {
            address: server.address().to_string(),
            engine: transport.name.to_string(),
            reason: transport.reason.to_string(),
        }
    }
}

/// What it says last.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// [`ringcall::Incidents`] by name.
    pub incidents: BTreeMap<String, u64>,
    /// How many requests it took.
    pub requests: u64,
}

/// A server that runs.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
    started: Started,
}

impl Process {
    /// Starts `binary`, the program of this crate. With `auto` it chooses its engine itself.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(
        binary: &Path,
        engine: TransportChoice,
        setting: &Setting,
    ) -> Result<Process, String> {
        let mut command = Command::new(binary);
        command.arg("serve").args(setting.to_arguments());
        command.env("RINGCALL_TRANSPORT", engine.to_string());
        Process::spawn(command)
    }

    /// Starts it by a command that somebody else has begun, which ends in `serve …`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn spawn(mut command: Command) -> Result<Process, String> {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        let said = output.read_line(&mut line).map_err(|error| error.to_string());
        match said.and_then(|_| serde_json::from_str(&line).map_err(|error| error.to_string())) {
            Ok(started) => Ok(Process { child, output, started }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(format!("the server said {line:?}: {error}"))
            }
        }
    }

    /// What it said.
    #[must_use]
    pub fn started(&self) -> &Started {
        &self.started
    }

    /// Where it listens.
    ///
    /// # Panics
    /// When that is no address of the internet.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.started.address.parse().expect("it listens at 127.0.0.1")
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it holds now.
    ///
    /// # Errors
    /// When it is gone.
    pub fn usage(&mut self) -> Result<Usage, String> {
        match self.child.try_wait() {
            Ok(None) => Usage::of(self.child.id()),
            Ok(Some(status)) => Err(format!("the server has ended with {status}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What it has allocated now; its main thread, which has nothing else to do, says so.
    ///
    /// # Errors
    /// When it is gone.
    pub fn live(&mut self) -> Result<Live, String> {
        let mut input = self.child.stdin.as_ref().expect("open until it is stopped");
        input.write_all(b"\n").map_err(|error| error.to_string())?;
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(|error| error.to_string())?;
        serde_json::from_str(&line).map_err(|error| format!("the server said {line:?}: {error}"))
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// When it ended before, or otherwise.
    pub fn stop(mut self) -> Result<Report, String> {
        drop(self.child.stdin.take());
        let mut said = String::new();
        self.output.read_to_string(&mut said).map_err(|error| error.to_string())?;
        let status = self.child.wait().map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("the server ended with {status}"));
        }
        serde_json::from_str(&said).map_err(|error| format!("the server said {said:?}: {error}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process holds.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Resident memory, in bytes.
    pub resident: u64,
    /// The most that it was.
    pub resident_max: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Time that it has run on a processor, in ms.
    pub processor_ms: u64,
}

impl Usage {
    /// Of the process with this number.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(process: u32) -> Result<Usage, String> {
        let read = |name: &str| {
            let path = format!("/proc/{process}/{name}");
            fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
        };
        let (status, stat) = (read("status")?, read("stat")?);
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().next()?.parse::<u64>().ok()
        };
        // Behind the name, which may have anything in it: user and system time are the 12th and 13th from there.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
        let ticks: u64 =
            fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count);
        Ok(Usage {
            resident: field("VmRSS:").unwrap_or(0) << 10,
            resident_max: field("VmHWM:").unwrap_or(0) << 10,
            descriptors: descriptors as u64,
            threads: field("Threads:").unwrap_or(0),
            processor_ms: ticks * 1000 / rustix::param::clock_ticks_per_second(),
        })
    }
}

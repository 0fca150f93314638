//! The attackers: a process in Python.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde::Deserialize;

/// An attack that there is.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Attack {
    /// How it is asked for.
    pub name: String,
    /// What it does.
    pub what: String,
    /// The close codes of which each must be seen,
    codes: Vec<u64>,
    /// when it has gone on for so many seconds.
    due: u64,
}

impl Attack {
    /// All of them, in their order.
    ///
    /// # Errors
    /// When there is no Python.
    pub fn all() -> Result<Vec<Attack>, String> {
        let mut list = python("attacks.py");
        let output = list.arg("--list").output().map_err(|error| format!("{list:?}: {error}"))?;
        serde_json::from_slice(&output.stdout).map_err(|error| format!("{list:?}: {error}"))
    }

    /// The close codes that should have been seen, if it went on for so long, and were not.
    #[must_use]
    pub fn codes_missing(&self, seen: &Seen, seconds: u64) -> Vec<u64> {
        let is_missing = |code: &&u64| seconds >= self.due && !seen.codes.contains(code);
        self.codes.iter().filter(is_missing).copied().collect()
    }
}

/// What became of an attack.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Seen {
    /// Connections that were made.
    pub opened: u64,
    /// Bytes that the server, or the kernel for it, took.
    pub bytes_sent: u64,
    /// The codes of the GOAWAYs that came.
    codes: Vec<u64>,
    /// What the server must never do, and how often it did.
    pub violations: BTreeMap<String, u64>,
}

/// Attackers at work. Dropping them ends them.
#[derive(Debug)]
pub struct Attackers(Child);

/// How an attack is made.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// How many connections there are, each of which begins again when it has ended.
    pub connections: u64,
    /// For how long.
    pub seconds: u64,
    /// Of what they draw.
    pub seed: u64,
    /// Whether they take only what others leave of their core.
    pub is_idle: bool,
}

impl Attackers {
    /// Starts them.
    ///
    /// # Errors
    /// When there is no Python.
    pub fn start(attack: &str, target: SocketAddr, manner: Manner) -> Result<Attackers, String> {
        let mut command = python("attacks.py");
        command.args([attack, &target.ip().to_string(), &target.port().to_string()]);
        let Manner { connections, seconds, seed, is_idle } = manner;
        let numbers = [("--connections", connections), ("--seconds", seconds), ("--seed", seed)];
        for (name, value) in numbers {
            command.args([name, &value.to_string()]);
        }
        command.args(is_idle.then_some("--idle"));
        let child = command.stdout(Stdio::piped()).spawn();
        child.map(Attackers).map_err(|error| format!("{command:?}: {error}"))
    }

    /// Whether they have ended.
    pub fn is_over(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    /// What became of it, when they are over.
    ///
    /// # Errors
    /// When they are not, or something is wrong with them.
    pub fn seen(mut self) -> Result<Seen, String> {
        if !self.is_over() {
            return Err("the attackers do not come to an end".to_owned());
        }
        let output = self.0.stdout.take().expect("piped");
        let seen = serde_json::from_reader(output);
        let status = self.0.wait().map_err(|error| error.to_string())?;
        seen.map_err(|error| format!("the attackers ended with {status}: {error}"))
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether there is a Python to attack with.
#[must_use]
pub fn has_python() -> bool {
    Command::new("python3").arg("--version").output().is_ok()
}

/// Python with a script of `python/`.
#[must_use]
pub fn python(script: &str) -> Command {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/python"));
    let mut command = Command::new("python3");
    command.arg("-B").arg(folder.join(script));
    command
}

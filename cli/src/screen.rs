//! What it writes to.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::Value;

use crate::Io;
use crate::text::{escaped, harmless};

/// Standard output and errors: whatever servers say passes through here, and nothing of it acts on a terminal.
pub(crate) struct Screen<'a> {
    io: Io<'a>,
}

impl<'a> Screen<'a> {
    pub(crate) fn new(io: Io<'a>) -> Screen<'a> {
        Screen { io }
    }

    /// A line, or several, of the result.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.io.stdout, "{}", harmless(text))
    }

    /// What comes next takes the place of what was shown; where somebody looks.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        match self.io.stdout_is_terminal {
            true => self.io.stdout.write_all(b"\x1b[H\x1b[2J"),
            false => Ok(()),
        }
    }

    /// A value, as people read it.
    pub(crate) fn json(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.io.stdout, "{}", escaped(&format!("{value:#}")))
    }

    /// A value as one line of many.
    pub(crate) fn json_line(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.io.stdout, "{}", escaped(&value.to_string()))
    }

    /// Bytes as they are, which are not for terminals.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.stdout.write_all(bytes)
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.io.stdout.flush()
    }

    /// A line beside the result.
    pub(crate) fn note(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.io.stderr, "{}", harmless(text))
    }

    pub(crate) fn stdin(&mut self) -> &mut dyn io::Read {
        &mut *self.io.stdin
    }

    /// For another thread; what is left here has nothing.
    pub(crate) fn take_stdin(&mut self) -> Box<dyn io::Read + Send> {
        std::mem::replace(&mut self.io.stdin, Box::new(io::empty()))
    }

    pub(crate) fn stdout_is_terminal(&self) -> bool {
        self.io.stdout_is_terminal
    }

    pub(crate) fn shows_progress(&self) -> bool {
        self.io.stderr_is_terminal
    }

    pub(crate) fn on_interrupt(&self) -> io::Result<Arc<AtomicBool>> {
        (self.io.on_interrupt)()
    }
}

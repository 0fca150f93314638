//! The command-line tool of ringcall, `ringcall`, as a function: [`run`] is given what a program is, so that tests call it
//! without one.
//!
//! ```text
//! ringcall list ADDRESS                              the services of a server, and their methods
//! ringcall describe ADDRESS [SERVICE[/METHOD]]       their docs, signatures, types, examples of arguments
//! ringcall call ADDRESS SERVICE/METHOD [ARGUMENT]    one call; argument and reply are JSON
//! ringcall load ADDRESS SERVICE/METHOD [ARGUMENT]    many calls: how many a second, and how long they take
//! ringcall ping ADDRESS                              whether there is a server, and how far away it is
//! ringcall health ADDRESS [SERVICE]                  whether it is ready for calls: the exit code says it
//! ringcall top ADDRESS                               what it does: calls a second of each method, how long they take
//! ```
//!
//! But for `ping` and `top`, ADDRESS may be a service of a [registry](ringcall_registry): `registry:10.0.0.1:7400/quotes`.
//!
//! All but `ping`, `health`, `top` and `--raw` want a server that offers [`ringcall::reflection`]:
//!
//! ```
//! use ringcall::{Server, reflection::{Interface, Reflection}};
//! use ringcall_cli::{Exit, Io, run};
//!
//! # #[ringcall::service(name = "market.Quotes")]
//! # trait Quotes { async fn last(&self, symbol: String) -> u64; }
//! # struct Book;
//! # impl Quotes for Book { async fn last(&self, _: String) -> u64 { 42 } }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::bind("127.0.0.1:0")
//!     .service(Book.into_quotes())
//!     .service(Interface.into_reflection())
//!     .start()?;
//!
//! let address = server.address().to_string();
//! let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
//! let io = Io::of(std::io::empty(), &mut stdout, &mut stderr);
//! let exit = run(["ringcall", "call", &address, "market.Quotes/last", r#""ABC""#], io);
//! assert_eq!((exit, &*stdout), (Exit::Done, &b"42\n"[..]));
//! # Ok(()) }
//! ```
//!
//! `docs/CLI.md` has a session, the exit codes, and how `load` measures.
//!
//! Features: `tls`, on by default.

#![forbid(unsafe_code)]

mod args;
mod argument;
mod call;
mod connect;
mod describe;
mod exit;
mod health;
mod list;
mod load;
mod ping;
mod reach;
mod screen;
mod stream;
mod text;
mod top;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser as _;

use args::{Args, Command};
pub use exit::Exit;
use exit::Problem;
use screen::Screen;

/// What a program reads from, writes to, and is interrupted by.
pub struct Io<'a> {
    /// Where an ARGUMENT of `-` comes from, and items of `-`, which another thread reads.
    pub stdin: Box<dyn Read + Send>,
    /// Where results go.
    pub stdout: &'a mut dyn Write,
    /// Where errors go, and what was not asked for but is good to know.
    pub stderr: &'a mut dyn Write,
    /// Whether results are for somebody's eyes: bytes as they are do not go there then.
    pub stdout_is_terminal: bool,
    /// Whether somebody looks on: then long work shows its progress, on the terminal itself.
    pub stderr_is_terminal: bool,
    /// Is called once work begins that can be cut short, and gives what says that it shall be.
    pub on_interrupt: fn() -> io::Result<Arc<AtomicBool>>,
}

impl<'a> Io<'a> {
    /// Without a terminal, and without interruption.
    pub fn of(
        stdin: impl Read + Send + 'static,
        stdout: &'a mut dyn Write,
        stderr: &'a mut dyn Write,
    ) -> Io<'a> {
        Io {
            stdin: Box::new(stdin),
            stdout,
            stderr,
            stdout_is_terminal: false,
            stderr_is_terminal: false,
            on_interrupt: || Ok(Arc::default()),
        }
    }
}

impl fmt::Debug for Io<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io")
            .field("stdout_is_terminal", &self.stdout_is_terminal)
            .field("stderr_is_terminal", &self.stderr_is_terminal)
            .finish_non_exhaustive()
    }
}

/// Does what the arguments say, of which the first is the program's name.
pub fn run(args: impl IntoIterator<Item = impl Into<OsString> + Clone>, io: Io<'_>) -> Exit {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(help) => return show_help(&help, io),
    };
    let is_json = args.command.is_json();
    let mut screen = Screen::new(io);
    let done = match &args.command {
        Command::List(args) => list::run(args, &mut screen),
        Command::Describe(args) => describe::run(args, &mut screen),
        Command::Call(args) => call::run(args, &mut screen),
        Command::Load(args) => load::run(args, &mut screen),
        Command::Ping(args) => ping::run(args, &mut screen),
        Command::Health(args) => health::run(args, &mut screen),
        Command::Top(args) => top::run(args, &mut screen),
    };
    let done = done.and_then(|exit| screen.flush().map(|()| exit).map_err(Problem::from));
    done.unwrap_or_else(|problem| show_problem(&problem, is_json, &mut screen))
}

/// The help that was asked for, or a mistake in the arguments.
fn show_help(help: &clap::Error, io: Io<'_>) -> Exit {
    let is_mistake = help.use_stderr();
    let to = if is_mistake { io.stderr } else { io.stdout };
    // Nobody is left to be told that it cannot be written.
    let _ = write!(to, "{}", help.render());
    if is_mistake { Exit::Misused } else { Exit::Done }
}

fn show_problem(problem: &Problem, is_json: bool, screen: &mut Screen<'_>) -> Exit {
    let shown = match problem {
        Problem::ReaderGone => return Exit::Done,
        problem if is_json => screen.json(&problem.as_json()),
        _ => Ok(()),
    };
    // If that cannot be written either, the exit code says it all the same.
    let _ = shown.and_then(|()| screen.flush());
    let _ = screen.note(&format!("ringcall: {}", text::one_line(&problem.to_string())));
    problem.exit()
}

//! The tool `ringcall`; all of it is in the library beside it.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ringcall_cli::{Io, run};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

fn main() -> ExitCode {
    let exit = run(
        std::env::args_os(),
        Io {
            stdin: Box::new(io::stdin()),
            stdout: &mut io::stdout().lock(),
            stderr: &mut io::stderr(),
            stdout_is_terminal: io::stdout().is_terminal(),
            stderr_is_terminal: io::stderr().is_terminal(),
            on_interrupt,
        },
    );
    exit.into()
}

/// Says, from now on, whether somebody wants it to end. Who asks a second time has it end at once.
fn on_interrupt() -> io::Result<Arc<AtomicBool>> {
    const SHELLS_EXIT_CODE: i32 = 128 + SIGINT;
    let is_interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let seen = Arc::clone(&is_interrupted);
        flag::register_conditional_shutdown(signal, SHELLS_EXIT_CODE, Arc::clone(&seen))?;
        flag::register(signal, seen)?;
    }
    Ok(is_interrupted)
}

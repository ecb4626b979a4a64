//! The program `forwarder`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    forwarder::main()
}

//! The program `edge-node`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    edge_node::main()
}

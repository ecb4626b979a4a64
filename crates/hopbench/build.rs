//! Builds the catalog in anew when a file of it changes, which the macro that reads it can't say.

#[expect(
    clippy::print_stdout,
    reason = "that is how a build script talks to cargo"
)]
fn main() {
    println!("cargo:rerun-if-changed=catalog");
}

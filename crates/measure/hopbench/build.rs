//! Builds the catalog in anew when a file of it changes, which the macro that reads it can't say.
//! Keeps the flags of the compiler, which runs record.

fn main() {
    println!("cargo:rerun-if-changed=catalog");
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let flags = flags.replace(['\u{1f}', '\n'], " ");
    println!("cargo:rustc-env=HOPBENCH_RUSTFLAGS={flags}");
}

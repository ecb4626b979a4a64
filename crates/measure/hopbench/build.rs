//! Builds the catalog in anew when a file of it changes, which the macro that reads it can't say.

fn main() {
    println!("cargo:rerun-if-changed=catalog");
}

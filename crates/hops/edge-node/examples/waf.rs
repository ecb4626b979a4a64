//! Judges requests on the standard input: `waf PARANOIA < FILE.jsonl`.

use std::io;

use edge_node::waf::{Rules, Settings, Waf, file};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let paranoia = std::env::args()
        .nth(1)
        .map_or(Ok(1), |level| level.parse())?;
    let settings = Settings {
        paranoia,
        complete: true,
        ..Settings::default()
    };
    let waf = Waf::new(settings, Rules::builtin()?)?;
    file::judge(&waf, io::stdin().lock(), io::stdout().lock())?;
    Ok(())
}

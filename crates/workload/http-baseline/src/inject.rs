//! Options that add costs to the server.

use std::{
    io::{self, Write},
    time::Duration,
};

use origin::Injection;

/// Limits of the options. Beyond them, a server is of no use for testing a gate.
const CPU_PERCENT_MAX: f64 = 1_000.0;
const DELAY_US_MAX: u64 = 10_000_000;
const LEAK_MIB_MAX: u32 = 1 << 20;
const LEAK_BYTES_MAX: u32 = 1 << 30;

/// Added to every endpoint but `/health`.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Injected costs (to test a gate)")]
pub(crate) struct Inject {
    /// Use this much more CPU time, in percent of what the process uses without it
    #[arg(long, default_value_t = 0.0, value_name = "N", value_parser = percent)]
    inject_cpu_percent: f64,
    /// Hold each answer for this much longer, without using CPU time
    #[arg(long, default_value_t = 0, value_name = "N",
        value_parser = clap::value_parser!(u64).range(..=DELAY_US_MAX))]
    inject_delay_us: u64,
    /// Take this much memory per request and never give it back
    #[arg(long, default_value_t = 0, value_name = "N",
        value_parser = clap::value_parser!(u32).range(..=i64::from(LEAK_BYTES_MAX)))]
    inject_leak_bytes: u32,
    /// Stop leaking when this many MiB are taken in all
    #[arg(long, default_value_t = 1_024, value_name = "M", requires = "inject_leak_bytes",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(LEAK_MIB_MAX)))]
    inject_leak_total_mib: u32,
}

impl Inject {
    /// Returns the injected costs. If there are any, stderr says so, because stderr is kept beside
    /// the figures.
    pub(crate) fn announced(self) -> Injection {
        let injection = Injection {
            cpu_percent: self.inject_cpu_percent,
            delay: Duration::from_micros(self.inject_delay_us),
            leak_bytes: self.inject_leak_bytes as usize,
            leak_total_bytes: (self.inject_leak_total_mib as usize) << 20,
        };
        if !injection.is_none() {
            // Without a stderr there is nobody to tell.
            let _ = writeln!(
                io::stderr(),
                "injecting {injection}: for testing a gate only"
            );
        }
        injection
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent) if (0.0..=CPU_PERCENT_MAX).contains(&percent) => Ok(percent),
        _ => Err(format!("expected a number from 0 to {CPU_PERCENT_MAX}")),
    }
}

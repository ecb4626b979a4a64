//! The transports, as chosen on the command line, and the terms that both ends must agree on.

mod tuning;

use std::{fmt, net::SocketAddr, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use service::{Address, AdminAddress};

pub use self::tuning::{Mechanism, SpinLimit, Tuning};
use crate::{
    framed::{CHUNK_BYTES_MAX, SLOTS_MIN, Slots},
    ring::Terms,
};

/// The kind of transport between host and plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransportKind {
    /// rapace over a Unix socket, or over TCP if the address has a port
    Stream,
    /// rapace over shared memory
    Shm,
    /// Lanes in shared memory, without frames
    Ring,
    /// The clients' own sockets, which the host passes to the plugin
    Handoff,
}

/// The process that relays between a client and an upstream on handoff.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relay {
    /// The host keeps the client's socket, and the plugin passes it the upstream's
    Host,
    /// The host passes the client's socket to the plugin
    #[default]
    Plugin,
}

/// Address at which host and plugin meet: a path, or `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    /// Path of a Unix socket.
    Path(PathBuf),
    /// `HOST:PORT`, with a numeric host.
    Tcp(SocketAddr),
}

/// The transport's options, the same on both ends.
#[derive(Clone, Debug, clap::Args)]
pub struct TransportOptions {
    /// Transport between host and plugin
    #[arg(long, value_enum, default_value = "stream")]
    pub transport: TransportKind,
    /// Address at which host and plugin meet: a path of a Unix socket, or HOST:PORT
    #[arg(long, value_name = "ADDR")]
    pub addr: PeerAddress,
    /// Longest payload of a frame, in bytes [default: 65536; on shm the slot size]
    #[arg(long, value_name = "BYTES", value_parser = chunk_bytes)]
    pub chunk_bytes: Option<u32>,
    /// Number of bytes per tunnel and direction that may wait for a slow reader
    #[arg(long, value_name = "BYTES", default_value_t = 512 * 1024, value_parser = window_bytes)]
    pub window_bytes: u32,
    /// Slots of shared memory, for both directions together [default: 64, or what the host has]
    #[arg(long, value_name = "N", value_parser = shm_slots)]
    pub shm_slots: Option<u32>,
    /// Size of a slot in bytes [default: 4096, or what the host has]
    #[arg(long, value_name = "BYTES", value_parser = shm_slot_size)]
    pub shm_slot_size: Option<u32>,
    /// Number of descriptors in flight on ring, per connection and direction [default: 32]
    #[arg(long, value_name = "N", value_parser = ring_entries)]
    pub ring_entries: Option<u32>,
    /// Size of a connection's buffer on ring, per direction, in KiB [default: 64 to the plugin, 16
    /// from it]
    #[arg(long, value_name = "KIB", value_parser = ring_kib)]
    pub ring_kib: Option<u32>,
    /// Size of the memory from which a plugin on ring sends long data, in MiB [default: 64]
    #[arg(long, value_name = "MIB", value_parser = arena_mib)]
    pub arena_mib: Option<u32>,
    /// The options of ring for the machine.
    #[command(flatten)]
    pub tuning: Tuning,
    /// Process that relays on handoff if the plugin has an origin behind TCP or an upstream
    #[arg(long, value_enum, default_value = "plugin")]
    pub relay: Relay,
    /// Milliseconds to wait for the peer before giving up
    #[arg(long, value_name = "MS", default_value_t = 30_000)]
    pub peer_timeout_ms: u64,
}

/// Default for the longest payload of a stream frame. With less, the system calls per byte show.
/// With more, a Unix socket's buffer (208 KiB) has no room for a second frame, and the two ends
/// take turns.
const CHUNK_BYTES: u32 = 64 * 1024;

/// Default size of the arena: enough for 256 answers of 256 KiB that nobody has read.
const ARENA_MIB: u32 = 64;

/// rapace's own defaults.
const SLOTS: u32 = 64;
const SLOT_BYTES: u32 = 4096;

/// Largest arena, since offsets in it have 32 bits.
pub(crate) const ARENA_MIB_MAX: u32 = 4095;

/// rapace's own limit for a segment.
const SEGMENT_BYTES_MAX: u64 = 512 << 20;

/// Help of `--admin` in host and plugin, whose default is [`TransportOptions::admin_beside`].
pub const ADMIN_HELP: &str = "Address at which to serve the counters: unix:PATH, a loopback \
     HOST:PORT, or 'none' [default: a Unix socket beside --addr]";

impl TransportOptions {
    pub(crate) fn peer_timeout(&self) -> Duration {
        Duration::from_millis(self.peer_timeout_ms)
    }

    /// Returns the address of a Unix socket beside `--addr`, named for the program: only this user
    /// can connect.
    pub fn admin_beside(&self, program: &str) -> AdminAddress {
        AdminAddress::At(Address::Unix(match &self.addr {
            PeerAddress::Path(path) => {
                let mut name = path.clone().into_os_string();
                name.push(format!(".{program}-admin"));
                name.into()
            }
            PeerAddress::Tcp(address) => {
                std::env::temp_dir().join(format!("tunnel-{}.{program}-admin", address.port()))
            }
        }))
    }

    /// Returns whether this process sees the clients' bytes.
    pub(crate) fn sees_bytes(&self, is_host: bool) -> bool {
        match (self.transport, self.relay) {
            (TransportKind::Handoff, Relay::Host) => is_host,
            (TransportKind::Handoff, Relay::Plugin) => !is_host,
            (TransportKind::Stream | TransportKind::Shm | TransportKind::Ring, _) => true,
        }
    }

    /// Returns the terms for the lanes that the host lays out.
    pub(crate) fn ring_terms(&self, shards: usize, connections_max: usize) -> Terms {
        Terms::new(shards, connections_max, self.ring_entries, self.ring_kib)
    }

    pub(crate) fn arena_bytes(&self) -> usize {
        (self.arena_mib.unwrap_or(ARENA_MIB) as usize) << 20
    }

    /// Returns the slots of the segment that the host lays out.
    pub(crate) fn slots(&self) -> Slots {
        Slots {
            count: self.shm_slots.unwrap_or(SLOTS),
            size_bytes: self.shm_slot_size.unwrap_or(SLOT_BYTES),
        }
    }

    /// Returns the longest payload that this end sends in a frame, given the segment's slots if
    /// there is a segment.
    pub(crate) fn frame_bytes(&self, slots: Option<Slots>) -> usize {
        let bytes = match slots {
            Some(slots) => self
                .chunk_bytes
                .unwrap_or(slots.size_bytes)
                .min(slots.size_bytes),
            None => self.chunk_bytes.unwrap_or(CHUNK_BYTES),
        };
        bytes as usize
    }

    /// Checks that the options go together.
    ///
    /// # Errors
    /// If options that are fine by themselves don't.
    pub fn validate(&self) -> Result<(), String> {
        if self.transport != TransportKind::Stream
            && let PeerAddress::Tcp(address) = self.addr
        {
            return Err(format!(
                "--transport={} can't use '--addr={address}': it needs both ends on one machine; \
                 expected a path",
                self.transport
            ));
        }
        if self.transport == TransportKind::Shm {
            check_slots(self.slots())?;
        }
        if self.transport != TransportKind::Handoff && self.relay == Relay::Host {
            return Err(format!(
                "'--relay=host' needs '--transport=handoff': on --transport={} both processes \
                 relay",
                self.transport
            ));
        }
        Ok(())
    }
}

/// Checks that rapace can lay out and use a segment of such slots.
pub(crate) fn check_slots(Slots { count, size_bytes }: Slots) -> Result<(), String> {
    if !SLOT_COUNTS.contains(&count)
        || !SLOT_SIZES_BYTES.contains(&size_bytes)
        || size_bytes % SLOT_ALIGNMENT_BYTES != 0
    {
        return Err(format!(
            "a segment can't have {count} slots of {size_bytes} bytes"
        ));
    }
    if u64::from(count) * u64::from(size_bytes) > SEGMENT_BYTES_MAX {
        return Err(format!(
            "{count} slots of {size_bytes} bytes are more than the {SEGMENT_BYTES_MAX} bytes that \
             rapace allows; lower --shm-slots or --shm-slot-size"
        ));
    }
    Ok(())
}

/// Permitted numbers of slots of a segment on shm.
const SLOT_COUNTS: RangeInclusive<u32> = SLOTS_MIN..=65_536;
/// Permitted sizes of those slots.
const SLOT_SIZES_BYTES: RangeInclusive<u32> = 64..=16 << 20;
/// rapace keeps its free list inside the slots.
const SLOT_ALIGNMENT_BYTES: u32 = 8;

fn chunk_bytes(text: &str) -> Result<u32, String> {
    bounded(text, 64, u32::try_from(CHUNK_BYTES_MAX).expect("fits"))
}

fn window_bytes(text: &str) -> Result<u32, String> {
    bounded(text, 1, 64 << 20)
}

fn arena_mib(text: &str) -> Result<u32, String> {
    bounded(text, 1, ARENA_MIB_MAX)
}

fn ring_entries(text: &str) -> Result<u32, String> {
    bounded(text, 2, 1024)
}

fn ring_kib(text: &str) -> Result<u32, String> {
    let kib = bounded(text, 4, 1024)?;
    // The buffers are whole pages.
    if kib % 4 == 0 {
        Ok(kib)
    } else {
        Err("expected a multiple of 4".to_owned())
    }
}

fn shm_slots(text: &str) -> Result<u32, String> {
    bounded(text, *SLOT_COUNTS.start(), *SLOT_COUNTS.end())
}

fn shm_slot_size(text: &str) -> Result<u32, String> {
    let bytes = bounded(text, *SLOT_SIZES_BYTES.start(), *SLOT_SIZES_BYTES.end())?;
    if bytes % SLOT_ALIGNMENT_BYTES == 0 {
        Ok(bytes)
    } else {
        Err("expected a multiple of 8".to_owned())
    }
}

fn bounded(text: &str, min: u32, max: u32) -> Result<u32, String> {
    match text.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("expected a number from {min} to {max}")),
    }
}

impl FromStr for PeerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Tcp(address));
        }
        let path = text.strip_prefix("unix:").unwrap_or(text);
        // A name and a port, which would become the name of a file.
        if let (true, Some((name, port))) = (path == text, text.rsplit_once(':'))
            && !name.contains('/')
            && port.parse::<u16>().is_ok()
        {
            return Err(format!(
                "expected a path, or HOST:PORT with a numeric host such as '127.0.0.1:{port}'; \
                 for a file of this name, write './{text}'"
            ));
        }
        // `sun_path` holds 108 bytes with the final zero.
        match path.len() {
            0 => Err("expected a path or HOST:PORT".to_owned()),
            1..108 => Ok(Self::Path(path.into())),
            length => Err(format!(
                "a socket's path can have at most 107 bytes, this one has {length}"
            )),
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Plugin => "plugin",
        })
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream => "stream",
            Self::Shm => "shm",
            Self::Ring => "ring",
            Self::Handoff => "handoff",
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        options: TransportOptions,
    }

    fn parse(arguments: &str) -> Result<TransportOptions, String> {
        let arguments = ["test"].into_iter().chain(arguments.split(' '));
        let options = Command::try_parse_from(arguments).map_err(|error| error.to_string())?;
        options.options.validate()?;
        Ok(options.options)
    }

    #[test]
    fn a_name_with_a_port_is_not_taken_for_a_file() {
        for (text, is_fine) in [
            ("127.0.0.1:4001", true),
            ("[::1]:4001", true),
            ("/tmp/a:1", true),
            ("./localhost:4001", true),
            ("unix:localhost:4001", true),
            ("localhost:4001", false),
            ("", false),
        ] {
            let parsed = text.parse::<PeerAddress>();
            assert_eq!(parsed.is_ok(), is_fine, "{text}: {parsed:?}");
        }
    }

    #[test]
    fn chunks_fit_the_slots() {
        let options = parse("--transport=shm --addr=/tmp/a").expect("valid");
        assert_eq!(options.frame_bytes(Some(options.slots())), 4096);
        let options = parse("--transport=shm --addr=/tmp/a --chunk-bytes=1024").expect("valid");
        assert_eq!(options.frame_bytes(Some(options.slots())), 1024);
        let options = parse("--addr=/tmp/a").expect("valid");
        assert_eq!(options.frame_bytes(None), 65_536);
    }

    #[test]
    fn nonsense_is_refused_with_what_was_expected() {
        for (arguments, expected) in [
            ("--transport=ship --addr=/a", "'ship'"),
            ("--transport=shm --addr=127.0.0.1:1", "expected a path"),
            ("--transport=handoff --addr=127.0.0.1:1", "expected a path"),
            (
                "--transport=ring --addr=/a --relay=host",
                "--transport=handoff",
            ),
            ("--transport=shm --addr=/a --shm-slots=7", "from 8 to"),
            (
                "--transport=shm --addr=/a --shm-slot-size=100",
                "multiple of 8",
            ),
            (
                "--transport=shm --addr=/a --shm-slots=65536 --shm-slot-size=65536",
                "rapace allows",
            ),
            ("--addr=/a --chunk-bytes=0", "from 64 to"),
            ("--addr=", "expected a path"),
        ] {
            let message = parse(arguments).unwrap_err();
            assert!(message.contains(expected), "{arguments}: {message}");
        }
    }
}

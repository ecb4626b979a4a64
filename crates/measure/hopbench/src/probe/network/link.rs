//! A slow network in a namespace of this process: what a client sends to [`FAR`] comes back to
//! this machine after a while, or not at all.
//!
//! The device is a TUN device that hopbench reads and writes. Its packets go through the whole TCP
//! stack of the kernel, which repeats the lost ones. A kernel without netem can do that, too.

use std::{
    collections::VecDeque,
    fs, io,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{getgid, getuid},
};
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::{
    plan::toolbox::Toolbox,
    process::{Command, capture},
};

/// The address of this machine as it is reached over the slow network.
pub(super) const FAR: Ipv4Addr = Ipv4Addr::new(10, 117, 0, 2);

/// This machine's own address in the slow network.
const NEAR: &str = "10.117.0.1/24";

/// Name of the device.
const DEVICE: &str = "hopbench";

/// Longest packet, in bytes.
const PACKET_BYTES_MAX: usize = 1_500;

/// Most packets under way. A router drops those that come when its queue is full.
const UNDER_WAY_MAX: usize = 10_000;

/// Longest pause between two looks at whether the network is to end.
const PAUSE: Duration = Duration::from_millis(100);

/// A namespace of the network that this process has entered, or why it has none.
pub(crate) type Entered = Result<(), String>;

/// The way in which a network treats packets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Condition {
    /// Time that a packet takes.
    pub(super) delay: Duration,
    /// Share of the packets that are lost, in percent.
    pub(super) loss_percent: f64,
}

/// The slow network, which ends with this value.
pub(super) struct Link {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    condition: Mutex<Condition>,
}

/// Moves this process to a network namespace of its own, whose children inherit it. A user who
/// isn't root must be the only thread.
pub(crate) fn enter() -> Entered {
    let apart = unshare(CloneFlags::CLONE_NEWNET).or_else(|_| {
        let (user, group) = (getuid(), getgid());
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
        let map = |name: &str, text: String| {
            let written = fs::write(format!("/proc/self/{name}"), text);
            written.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
        };
        map("setgroups", "deny".to_owned())?;
        map("uid_map", format!("0 {} 1", user.as_raw()))?;
        map("gid_map", format!("0 {} 1", group.as_raw()))
    });
    apart.map_err(|error| format!("no network namespace of its own: {error}"))
}

impl Link {
    /// Makes the network. The seed decides which packets are lost.
    pub(super) fn start(toolbox: &Toolbox, seed: u64) -> anyhow::Result<Self> {
        let device = DeviceBuilder::new().name(DEVICE).build_sync();
        let device = device.context("no TUN device ('/dev/net/tun')")?;
        device.set_nonblocking(true)?;
        let ip = toolbox.program("ip");
        let ip = ip.context("no program 'ip'; install 'iproute2'")?;
        for arguments in [
            "link set lo up".to_owned(),
            format!("addr add {NEAR} dev {DEVICE}"),
            format!("link set {DEVICE} mtu {PACKET_BYTES_MAX} up"),
        ] {
            capture(&Command {
                program: ip.clone(),
                arguments: arguments.split(' ').map(str::to_owned).collect(),
                ..Command::default()
            })?;
        }
        let shared = Arc::new(Shared::default());
        let carrier = Carrier {
            device,
            shared: Arc::clone(&shared),
            rng: fastrand::Rng::with_seed(seed),
            under_way: VecDeque::new(),
        };
        let thread = thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || carrier.carry())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Changes what happens to packets from now on.
    pub(super) fn set(&self, condition: Condition) {
        let mut now = self.shared.condition.lock();
        **now.as_mut().unwrap_or_else(|error| error.get_mut()) = condition;
    }

    /// Returns an error if the network has ended by itself.
    pub(super) fn must_run(&self) -> anyhow::Result<()> {
        let has_ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        anyhow::ensure!(!has_ended, "the slow network has ended by itself");
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has said why it panicked.
            let _ = thread.join();
        }
    }
}

/// Takes packets from the device and gives them back.
struct Carrier {
    device: SyncDevice,
    shared: Arc<Shared>,
    rng: fastrand::Rng,
    /// Packets and when they are due, in the order in which they came.
    under_way: VecDeque<(Instant, Vec<u8>)>,
}

impl Carrier {
    fn carry(mut self) {
        while !self.shared.is_over.load(Relaxed) {
            let step = self.wait().and_then(|()| {
                self.take()?;
                self.deliver()
            });
            if let Err(error) = step {
                crate::console::say(&format!("error: the slow network: {error}"));
                return;
            }
        }
    }

    /// Waits for a packet from the device, or until one is due.
    fn wait(&self) -> io::Result<()> {
        let due = self.under_way.front().map(|(due, _)| *due);
        let left = due.map_or(PAUSE, |due| due.saturating_duration_since(Instant::now()));
        let left = left.min(PAUSE);
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&self.device, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes all packets that the kernel has sent.
    fn take(&mut self) -> io::Result<()> {
        let mut buffer = [0; PACKET_BYTES_MAX];
        loop {
            let length = match self.device.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let now = *self
                .shared
                .condition
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let is_lost = self.rng.f64() * 100.0 < now.loss_percent;
            let Some(packet) = returned(&buffer[..length]) else {
                continue;
            };
            if !is_lost && self.under_way.len() < UNDER_WAY_MAX {
                self.under_way
                    .push_back((Instant::now() + now.delay, packet));
            }
        }
    }

    /// Gives the packets back that are due.
    fn deliver(&mut self) -> io::Result<()> {
        while let Some((due, packet)) = self.under_way.front() {
            if *due > Instant::now() {
                break;
            }
            match self.device.send(packet) {
                // The kernel's queue is full.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            self.under_way.pop_front();
        }
        Ok(())
    }
}

/// Returns a packet of IPv4 as it comes from the other end: with its source and its destination
/// exchanged. The checksums are sums, and stay as they are.
fn returned(packet: &[u8]) -> Option<Vec<u8>> {
    const VERSION_4: u8 = 4;
    /// Place of both addresses in the header (RFC 791, section 3.1).
    const ADDRESSES: std::ops::Range<usize> = 12..20;
    if packet.first()? >> 4 != VERSION_4 {
        return None;
    }
    let mut packet = packet.to_vec();
    packet.get_mut(ADDRESSES)?.rotate_left(4);
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_comes_back_with_its_addresses_exchanged() {
        let mut packet = vec![0x45; 24];
        packet[12..20].copy_from_slice(&[10, 117, 0, 1, 10, 117, 0, 2]);
        let back = returned(&packet).expect("a packet");
        assert_eq!(back[12..20], [10, 117, 0, 2, 10, 117, 0, 1]);
        assert_eq!(returned(&back), Some(packet));
        assert_eq!(returned(&[0x60; 40]), None);
        assert_eq!(returned(&[0x45; 19]), None);
        assert_eq!(returned(&[]), None);
    }
}

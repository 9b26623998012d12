//! A path of the internet on one machine: two network namespaces with a TUN device each, and threads between them that
//! hold packets back, drop some, and let through no more than a rate.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// One direction of a path.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Bytes per second.
    pub rate: f64,
    /// Time a packet takes, beside its turn in the queue.
    pub delay: Duration,
    /// Time that the longest queue takes; what comes then is dropped.
    pub queue: Duration,
    /// Share of packets that is lost by chance.
    pub loss: f64,
}

/// Moves the calling thread, and threads and processes it starts from now on, into a network of its own; returns the
/// device that is its only way out. `host` is the last byte of its address in 10.79.0.0/24.
pub fn enter(host: u8) -> Result<File, String> {
    // SAFETY: it takes no pointers; other threads keep their network.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(format!("a network of its own: {}", std::io::Error::last_os_error()));
    }
    let tun = File::options().read(true).write(true).open("/dev/net/tun");
    let tun = tun.map_err(|error| format!("/dev/net/tun: {error}"))?;
    // SAFETY: `request` is a plain struct for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"path") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    // SAFETY: the device is open and `request` outlives the call.
    if unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } != 0 {
        return Err(format!("TUNSETIFF: {}", std::io::Error::last_os_error()));
    }
    let address = format!("addr add 10.79.0.{host}/24 dev path");
    for command in ["link set lo up", &address, "link set path mtu 1500 up"] {
        let made = Command::new("ip").args(command.split(' ')).status();
        if !made.is_ok_and(|status| status.success()) {
            return Err(format!("ip {command} failed"));
        }
    }
    Ok(tun)
}

/// Carries packets from one device to the other until the process ends. `dropped` counts those lost, by chance or queue.
pub fn carry(mut from: File, mut to: File, path: Path, seed: u64, dropped: Arc<AtomicU64>) {
    let (packets, due) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        for (at, packet) in due {
            if let Some(wait) = at.checked_duration_since(Instant::now()) {
                std::thread::sleep(wait);
            }
            // A device that was closed loses what comes.
            _ = to.write(&packet);
        }
    });
    std::thread::spawn(move || {
        let (mut free, mut random) = (Instant::now(), seed | 1);
        let mut buffer = [0; 2048];
        while let Ok(bytes) = from.read(&mut buffer) {
            // xorshift64 (Marsaglia 2003).
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let now = Instant::now();
            let start = free.max(now);
            let chance = (random >> 11) as f64 / (1u64 << 53) as f64;
            if start - now > path.queue || chance < path.loss {
                dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            free = start + Duration::from_secs_f64(bytes as f64 / path.rate);
            if packets.send((free + path.delay, buffer[..bytes].to_vec())).is_err() {
                return;
            }
        }
    });
}

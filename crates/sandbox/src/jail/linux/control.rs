//! Messages between a jail and its supervisor: one packet each, with file descriptors beside them.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::limits::MESSAGE_BYTES_MAX;

/// Descriptors in one message: the program's three streams.
const FDS_MAX: usize = 3;

/// How a shell reports a command that SIGSYS ended.
pub(super) const SIGSYS_CODE: i32 = 128 + libc::SIGSYS;

/// To the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ToSupervisor {
    /// Starts the program; comes first, with its standard streams.
    Start(Job),
    /// Connects to its loopback.
    ConnectTcp { port: u16 },
    /// Connects to its Unix socket.
    ConnectUnix { path: String },
}

/// What the supervisor needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Job {
    /// What runs, one after the other: each but the last must exit with 0. Not empty.
    pub(super) commands: Vec<Vec<String>>,
    pub(super) env: Vec<(String, String)>,
    pub(super) folder: PathBuf,
    /// What landlock lets it read.
    pub(super) read: Vec<PathBuf>,
    pub(super) cpu_seconds: u64,
    pub(super) file_bytes: u64,
    pub(super) open_files: u64,
}

/// From the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FromSupervisor {
    /// The program runs.
    Started,
    /// It cannot be run: the entry's doing.
    NotStarted(String),
    /// The machine lacks a command that prepares programs.
    Missing(String),
    /// The restrictions could not be set up: the machine's doing.
    Broken(String),
    /// It ended.
    Exited { code: Option<i32>, signal: Option<i32> },
    /// A folder it may write to is full.
    DiskFull,
    /// More lies in the folders that it may write to than before.
    Wrote { bytes: u64 },
    /// A connection; the socket comes beside.
    Connected,
    /// No connection.
    Refused(String),
}

/// Sends one message.
pub(super) fn send<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let bytes = wire::to_bytes(message);
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Errno::MSGSIZE);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::MSGSIZE);
    }
    rustix::io::retry_on_intr(|| {
        sendmsg(socket.as_fd(), &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Receives one message and its descriptors; `None` when the other side is gone or speaks nonsense.
pub(super) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> Option<(T, Vec<OwnedFd>)> {
    let mut bytes = vec![0_u8; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut once = || {
        rustix::io::retry_on_intr(|| {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            recvmsg(socket.as_fd(), &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        })
        .map(|got| got.bytes)
    };
    // Who leaves with messages unread resets the line, and the kernel says so before it gives out what was sent last.
    let got = match once() {
        Err(Errno::CONNRESET) => once(),
        other => other,
    };
    let got = got.ok()?;
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if got == 0 {
        return None;
    }
    Some((wire::from_bytes(&bytes[..got]).ok()?, fds))
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn last_words_are_heard_even_if_questions_were_left_unread() {
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        send(&ours, &ToSupervisor::ConnectTcp { port: 1 }, &[]).unwrap();
        let reason = FromSupervisor::NotStarted("Exec format error".to_owned());
        send(&theirs, &reason, &[]).unwrap();
        drop(theirs);
        assert_eq!(receive::<FromSupervisor>(&ours).map(|(message, _)| message), Some(reason));
        assert!(receive::<FromSupervisor>(&ours).is_none());
    }
}

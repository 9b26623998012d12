//! Programs that serve, and programs that look for servers.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use shoal_sandbox::{End, Fault};

use super::outside::{limits, outside};

const WITHIN: Duration = Duration::from_secs(15);
const PORT: &str = "8001";

/// Sends bytes through a stream of the jail and expects them back.
fn echoes(mut stream: impl Read + Write) {
    stream.write_all(b"over and back").unwrap();
    let mut back = [0; 13];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"over and back");
}

#[test]
fn a_server_on_its_own_loopback() {
    let Some(outside) = outside() else { return };
    let (program, token) = outside.program("serve", &[PORT], limits());
    let jail = outside.machine.start(&program).unwrap();
    let before = jail.usage().cpu;
    for _ in 0..3 {
        let stream = jail.connect_tcp(8001, WITHIN).unwrap();
        stream.set_read_timeout(Some(WITHIN)).unwrap();
        echoes(stream);
    }
    assert!(TcpStream::connect("127.0.0.1:8001").is_err(), "the port is open outside");
    let usage = jail.usage();
    assert!(usage.cpu >= before && usage.memory_peak_bytes > 0 && jail.ended().is_none());
    assert_eq!(jail.stop().unwrap().end, End::Stopped);
    outside.nothing_is_left(&token);
}

#[test]
fn two_jails_use_the_same_port() {
    let Some(outside) = outside() else { return };
    let (program, token) = outside.program("serve", &[PORT], limits());
    let jails = [outside.machine.start(&program).unwrap(), outside.machine.start(&program).unwrap()];
    for jail in &jails {
        echoes(jail.connect_tcp(8001, WITHIN).unwrap());
    }
    drop(jails);
    outside.nothing_is_left(&token);
}

#[test]
fn a_server_on_a_unix_socket() {
    let Some(outside) = outside() else { return };
    let (program, token) = outside.program("serve-unix", &["/tmp/socket"], limits());
    let jail = outside.machine.start(&program).unwrap();
    echoes(jail.connect_unix("/tmp/socket", WITHIN).unwrap());
    drop(jail);
    outside.nothing_is_left(&token);
}

#[test]
fn a_server_that_starts_late_or_never() {
    let Some(outside) = outside() else { return };
    let (program, _) = outside.program("serve-late", &[PORT], limits());
    let jail = outside.machine.start(&program).unwrap();
    let error = jail.connect_tcp(8001, Duration::from_millis(100)).unwrap_err();
    assert_eq!(error.fault(), Some(Fault::Startup), "{error}");
    echoes(jail.connect_tcp(8001, WITHIN).unwrap());
    drop(jail);
    let (program, token) = outside.program("sleep", &[], limits());
    let jail = outside.machine.start(&program).unwrap();
    let error = jail.connect_tcp(8001, Duration::from_millis(200)).unwrap_err();
    assert_eq!(error.fault(), Some(Fault::Startup), "{error}");
    assert!(jail.connect_unix("/tmp/none", Duration::from_millis(50)).is_err());
    assert!(jail.connect_unix(&"x".repeat(500), Duration::from_millis(50)).is_err());
    drop(jail);
    outside.nothing_is_left(&token);
}

#[test]
fn a_server_that_does_not_accept() {
    let Some(outside) = outside() else { return };
    let (program, token) = outside.program("serve-nobody", &[PORT], limits());
    let jail = outside.machine.start(&program).unwrap();
    let streams: Vec<_> = (0..4).map(|_| jail.connect_tcp(8001, Duration::from_millis(200))).collect();
    // The kernel's queue takes a few; then the attempt ends in time, and the jail still listens to us.
    assert!(streams[0].is_ok());
    for stream in streams.iter().flatten() {
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!((&mut &*stream).read(&mut [0; 1]).is_err());
    }
    assert_eq!(jail.stop().unwrap().end, End::Stopped);
    outside.nothing_is_left(&token);
}

#[test]
fn a_server_that_ends_in_the_middle() {
    let Some(outside) = outside() else { return };
    let (program, token) = outside.program("serve-once", &[PORT], limits());
    let jail = outside.machine.start(&program).unwrap();
    let mut stream = jail.connect_tcp(8001, WITHIN).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap_or(0), 0);
    let error = loop {
        // The kernel may take one more before the program is gone.
        if let Err(error) = jail.connect_tcp(8001, WITHIN) {
            break error;
        }
    };
    assert_eq!(error.fault(), Some(Fault::Trap), "{error}");
    assert_eq!(jail.wait().unwrap().end, End::Exited(9));
    outside.nothing_is_left(&token);
}

#[test]
fn an_answer_without_end_is_the_readers_to_cut() {
    let Some(outside) = outside() else { return };
    let (program, token) = outside.program("serve-flood", &[PORT], limits());
    let jail = outside.machine.start(&program).unwrap();
    let stream = jail.connect_tcp(8001, WITHIN).unwrap();
    let mut taken = Vec::new();
    stream.take(1 << 20).read_to_end(&mut taken).unwrap();
    assert_eq!(taken.len(), 1 << 20);
    drop(jail);
    outside.nothing_is_left(&token);
}

#[test]
fn the_hosts_loopback_is_another() {
    let Some(outside) = outside() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    for address in ["127.0.0.1", "127.0.0.2", "0.0.0.0"] {
        outside.shut("tcp", &[address, &port]);
    }
    assert!(listener.accept().is_err(), "a connection came out of the jail");
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    datagrams.set_nonblocking(true).unwrap();
    outside.shut("udp", &[&datagrams.local_addr().unwrap().port().to_string()]);
    assert!(datagrams.recv(&mut [0; 8]).is_err(), "a datagram came out of the jail");
}

#[test]
fn there_is_no_other_network() {
    let Some(outside) = outside() else { return };
    outside.shut("interfaces", &[]);
    outside.shut("raw-sockets", &[]);
}

#[test]
fn unix_sockets_of_the_host() {
    let Some(outside) = outside() else { return };
    let name = format!("shoal-hostile-{}", std::process::id());
    let hidden = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    hidden.set_nonblocking(true).unwrap();
    outside.shut("abstract-socket", &[&name]);
    assert!(hidden.accept().is_err());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    outside.shut("path-socket", &[path.to_str().unwrap()]);
    assert!(listener.accept().is_err());
}

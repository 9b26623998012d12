//! Programs that serve, and programs that look for servers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use shoal_sandbox::{End, Fault, Machine};

use super::listeners;
use super::outside::{groups, limits, listens_inside_alone, outside, processes};

const WITHIN: Duration = Duration::from_secs(15);
const PORT: &str = "8001";
/// 127.0.0.1:8001 as `/proc/net/tcp` writes it.
const SERVES: &str = "tcp 0100007F:1F41";

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
    let namespace = listens_inside_alone(&token, &[SERVES]);
    assert!(TcpStream::connect("127.0.0.1:8001").is_err(), "the port is open outside");
    let usage = jail.usage();
    assert!(usage.cpu >= before && usage.memory_peak_bytes > 0 && jail.ended().is_none());
    assert_eq!(jail.stop().unwrap().end, End::Stopped);
    outside.nothing_is_left(&token);
    assert!(listeners::living_in(&namespace).is_empty(), "its namespace lives on");
}

#[test]
fn two_jails_use_the_same_port() {
    let Some(outside) = outside() else { return };
    let (program, token) = outside.program("serve", &[PORT], limits());
    let jails = [outside.machine.start(&program).unwrap(), outside.machine.start(&program).unwrap()];
    for jail in &jails {
        echoes(jail.connect_tcp(8001, WITHIN).unwrap());
    }
    let before = listeners::of("self");
    drop(jails);
    outside.nothing_is_left(&token);
    listeners::none_is_left(&before);
}

#[test]
fn a_server_on_a_unix_socket() {
    let Some(outside) = outside() else { return };
    let (program, token) = outside.program("serve-unix", &["/tmp/socket"], limits());
    let jail = outside.machine.start(&program).unwrap();
    echoes(jail.connect_unix("/tmp/socket", WITHIN).unwrap());
    let namespace = listens_inside_alone(&token, &["unix /tmp/socket"]);
    drop(jail);
    outside.nothing_is_left(&token);
    assert!(listeners::living_in(&namespace).is_empty(), "its namespace lives on");
}

#[test]
fn a_server_that_starts_late_or_never() {
    let Some(outside) = outside() else { return };
    let (program, _) = outside.program("serve-late", &[PORT], limits());
    let jail = outside.machine.start(&program).unwrap();
    let error = jail.connect_tcp(8001, Duration::from_millis(100)).unwrap_err();
    assert_eq!(error.fault(), Some(Fault::Startup), "{error}");
    drop(jail.connect_unix("/tmp/go", WITHIN).unwrap());
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

/// Not a test but the judge of the next one, which starts it with this variable and kills it.
const VICTIM: &str = "SHOAL_TEST_VICTIM";

#[test]
fn a_judge_to_be_killed() {
    let Some(token) = std::env::var_os(VICTIM) else { return };
    let Some(outside) = outside() else { return };
    let (mut program, _) = outside.program("serve", &[PORT], limits());
    program.argv[2] = token.into_string().unwrap();
    let jail = outside.machine.start(&program).unwrap();
    let mut stream = jail.connect_tcp(8001, WITHIN).unwrap();
    println!("\nserving");
    stream.read_exact(&mut [0]).unwrap(); // for ever
}

#[test]
fn a_killed_judge_leaves_no_process_and_the_next_one_sweeps() {
    let Some(outside) = outside() else { return };
    let token = format!("victim-{}", std::process::id());
    let mut judge = Command::new(std::env::current_exe().unwrap())
        .args(["it::hostile_server::a_judge_to_be_killed", "--exact", "--nocapture"])
        .env(VICTIM, &token)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(judge.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line == "serving")));
    let pid = judge.id();
    assert!(!processes(&token).is_empty() && !groups(pid).is_empty());
    judge.kill().unwrap();
    judge.wait().unwrap();
    let deadline = Instant::now() + WITHIN;
    while !processes(&token).is_empty() {
        assert!(Instant::now() < deadline, "{:?} outlive their judge", processes(&token));
        std::thread::yield_now();
    }
    while !groups(pid).is_empty() {
        assert!(Instant::now() < deadline, "{:?} are not swept", groups(pid));
        Machine::probe(super::component::child()).unwrap();
    }
    drop(outside);
}

/// An interpreter with threads, a mounted script and number libraries' usual calls lives under these rules.
#[test]
fn an_honest_python_server() {
    let Some(outside) = outside() else { return };
    let python = ["/usr/bin/python3", "/usr/local/bin/python3"]
        .into_iter()
        .find(|path| std::path::Path::new(path).is_file());
    let Some(python) = python else {
        _ = writeln!(std::io::stderr(), "skipped: no Python among the system's programs");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let script = "
import sys, zlib, threading, tempfile, random, multiprocessing.synchronize, concurrent.futures
from http.server import ThreadingHTTPServer, BaseHTTPRequestHandler
pool = concurrent.futures.ThreadPoolExecutor(4)
lock = multiprocessing.Lock()
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        with lock, tempfile.TemporaryFile() as file:
            file.write(body); file.seek(0)
            answer = pool.submit(zlib.compress, file.read()).result()
        self.send_response(200); self.send_header('Content-Length', str(len(answer))); self.end_headers()
        self.wfile.write(answer)
ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
";
    std::fs::write(folder.path().join("solution.py"), script).unwrap();
    let mut program = shoal_sandbox::Program::new([python, "/entry/solution.py", "8001"]);
    program.mounts = vec![shoal_sandbox::Mount { from: folder.path().to_owned(), to: "/entry".into() }];
    program.limits = shoal_sandbox::JailLimits { memory_bytes: 256 << 20, ..limits() };
    let jail = outside.machine.start(&program).unwrap();
    for _ in 0..3 {
        let mut stream = jail.connect_tcp(8001, WITHIN).unwrap();
        stream.set_read_timeout(Some(WITHIN)).unwrap();
        let body = vec![7; 50_000];
        write!(stream, "POST /compress HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
        stream.write_all(&body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(
            answer.starts_with(b"HTTP/1.0 200") && answer.len() < 1000,
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    let report = jail.stop().unwrap();
    assert_eq!(report.end, End::Stopped, "{report:?}");
}

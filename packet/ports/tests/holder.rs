//! The holder against the real kernel.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    os::{
        fd::AsFd as _,
        unix::{fs::PermissionsExt as _, net::UnixStream, process::CommandExt as _},
    },
    process::Command,
    time::Duration,
};

use portolan_netlink::process::PidIdentity;
use portolan_ports::holder::{HoldError, HolderClient};
use portolan_testkit::{eventually, eventually_ok, need_root, net::private_namespace};
use rustix::process::{Pid, Signal, kill_process};
use socket2::Type;

mod support;
use support::{Holders, bind, connect, connect_tcp, hold, holder_program};

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn a_held_port_cannot_be_bound_by_anybody_and_refuses_clients() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let mut client = connect(folder.path(), &[]);
        client.hold(&[hold("20000/tcp"), hold("20000/udp")]).unwrap();
        for kind in [Type::STREAM, Type::DGRAM] {
            for address in ["0.0.0.0:20000", "[::]:20000", "127.0.0.1:20000", "[::1]:20000"] {
                for reuse in [false, true] {
                    let error = bind(kind, address, reuse).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::AddrInUse, "{kind:?} {address} reuse {reuse}");
                }
            }
        }
        for address in ["127.0.0.1:20000", "[::1]:20000"] {
            let error = connect_tcp(address).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}: {error}");
        }
        client.release(&[hold("20000/tcp")]).unwrap();
        bind(Type::STREAM, "[::]:20000", false).unwrap();
        assert!(bind(Type::DGRAM, "[::]:20000", false).is_err(), "UDP is still held");
    });
}

#[test]
fn neither_connect_nor_bind_to_0_chooses_a_held_port() {
    need_root!();
    private_namespace(|| {
        // Eight ports, seven of them held: the kernel has one to choose.
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40007").unwrap();
        let folder = Holders::new();
        let mut client = connect(folder.path(), &[]);
        client.hold(&[hold("40000-40006/tcp"), hold("40000-40006/udp")]).unwrap();
        let server = bind(Type::STREAM, "[::]:9", false).unwrap();
        server.listen(8).unwrap();
        let stream = TcpStream::connect("127.0.0.1:9").unwrap();
        assert_eq!(stream.local_addr().unwrap().port(), 40_007);
        assert_eq!(connect_tcp("127.0.0.1:9").map(|_| ()).unwrap_err().kind(), ErrorKind::AddrNotAvailable);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(udp.local_addr().unwrap().port(), 40_007);
        assert!(UdpSocket::bind("127.0.0.1:0").is_err());
    });
}

#[test]
fn one_number_on_two_addresses_is_two_holds() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let mut client = connect(folder.path(), &[]);
        client
            .hold(&[hold("127.0.0.1:8443/tcp"), hold("127.0.0.2:8443/tcp"), hold("[::1]:8443/tcp")])
            .unwrap();
        assert!(bind(Type::STREAM, "127.0.0.2:8443", true).is_err());
        bind(Type::STREAM, "127.0.0.3:8443", false).unwrap();
        let error = client.hold(&[hold("192.0.2.1:8443/tcp")]).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot bind 8443/tcp on 192.0.2.1: Cannot assign requested address"),
            "{error}"
        );
    });
}

#[test]
fn a_block_is_held_whole_or_not_at_all_and_the_error_says_what_is_in_the_way() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let mut client = connect(folder.path(), &[]);
        let _foreign = bind(Type::DGRAM, "127.0.0.1:20500", false).unwrap();
        let Err(HoldError::Refused(failures)) = client.hold(&[hold("20000-20999/udp")]) else { panic!() };
        assert_eq!(failures.iter().map(|f| f.port).collect::<Vec<_>>(), [20_500]);
        assert!(failures[0].is_taken());
        assert_eq!(client.count().unwrap(), 0);
        client.hold(&[hold("21000-21999/udp"), hold("21000-21999/tcp")]).unwrap();
        assert_eq!(client.list().unwrap(), [hold("21000-21999/tcp"), hold("21000-21999/udp")]);
        assert_eq!(client.release(&[hold("21500-22500/udp")]).unwrap(), 500);
        assert_eq!(client.list().unwrap(), [hold("21000-21999/tcp"), hold("21000-21499/udp")]);
    });
}

#[test]
fn a_released_block_is_anybodys_at_once_and_one_released_soon_a_little_later() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let mut client = connect(folder.path(), &[]);
        for _ in 0..3 {
            client.hold(&[hold("20000-20999/tcp")]).unwrap();
            client.release(&[hold("20000-20999/tcp")]).unwrap();
            // The last one first: it is closed last.
            for port in (20_000..21_000).rev().step_by(37) {
                bind(Type::STREAM, &format!("[::]:{port}"), false).unwrap();
            }
        }
        client.hold(&[hold("20000-20999/tcp")]).unwrap();
        assert_eq!(client.release_soon(&[hold("20000-20999/tcp")]).unwrap(), 1_000);
        assert_eq!(client.list().unwrap(), []);
        eventually_ok(Duration::from_secs(10), || bind(Type::STREAM, "[::]:20999", false)).unwrap();
        eventually_ok(Duration::from_secs(10), || bind(Type::STREAM, "[::]:20000", false)).unwrap();
    });
}

#[test]
fn a_block_that_was_let_go_of_can_be_held_again_at_once() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let mut client = connect(folder.path(), &[]);
        let block = [hold("20000-20999/tcp"), hold("20000-20999/udp")];
        for _ in 0..5 {
            client.hold(&block).unwrap();
            assert!(bind(Type::STREAM, "127.0.0.1:20500", true).is_err());
            client.release_soon(&block).unwrap();
        }
        // Also on one address, and by somebody who asks for more than can be had.
        client.hold(&[hold("127.0.0.1:20000/tcp")]).unwrap();
        client.hold(&block[1..]).unwrap();
        client.release_soon(&block[1..]).unwrap();
        let _foreign = bind(Type::DGRAM, "127.0.0.1:21500", false).unwrap();
        client.hold(&[hold("20900-21500/udp")]).unwrap_err();
        assert_eq!(client.list().unwrap(), [hold("127.0.0.1:20000/tcp")]);
        eventually_ok(Duration::from_secs(10), || bind(Type::DGRAM, "[::]:20950", false)).unwrap();
    });
}

#[test]
fn a_second_block_is_held_like_the_first() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let mut client = connect(folder.path(), &[]);
        let sockets = |client: &HolderClient| {
            fs::read_dir(format!("/proc/{}/fd", client.pids()[0])).map(Iterator::count).unwrap()
        };
        client.hold(&[hold("20000-20299/tcp")]).unwrap();
        // It makes as many for the next one while nobody asks.
        eventually(Duration::from_secs(10), || sockets(&client) >= 600);
        client.hold(&[hold("21000-21299/tcp"), hold("21000-21299/udp")]).unwrap();
        assert_eq!(client.count().unwrap(), 900);
        for kind in [Type::STREAM, Type::DGRAM] {
            for address in ["0.0.0.0:21000", "[::]:21150", "127.0.0.1:21299", "[::1]:21299"] {
                for reuse in [false, true] {
                    let error = bind(kind, address, reuse).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::AddrInUse, "{kind:?} {address} reuse {reuse}");
                }
            }
        }
        let refused = connect_tcp("127.0.0.1:21000").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let taken = UdpSocket::from(client.take(hold("21000/udp")).unwrap().unwrap());
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(b"hello", "127.0.0.1:21000").unwrap();
        let mut buffer = [0; 16];
        assert_eq!(taken.recv(&mut buffer).unwrap(), 5);
    });
}

#[test]
fn sockets_for_the_next_block_never_take_the_room_of_this_one() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        // Of the tests' holder: so many sockets, and then another holder.
        let mut client = connect(folder.path(), &["--limit", "400"]);
        client.hold(&[hold("20000-20299/tcp")]).unwrap();
        for _ in 0..3 {
            client.hold(&[hold("21000-21099/udp")]).unwrap();
            assert_eq!(client.pids().len(), 1, "there is room for 400");
            client.release_soon(&[hold("21000-21099/udp")]).unwrap();
        }
    });
}

#[test]
fn a_protocol_without_sockets_is_held_by_definition() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let mut client = connect(folder.path(), &[]);
        client.hold(&[hold("20000-20009/sctp")]).unwrap();
        assert_eq!(client.count().unwrap(), 10);
        assert_eq!(client.list().unwrap(), [hold("20000-20009/sctp")]);
    });
}

#[test]
fn a_taken_socket_can_listen_without_a_gap() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let mut client = connect(folder.path(), &[]);
        client.hold(&[hold("20000/tcp"), hold("20001/udp")]).unwrap();
        let socket = socket2::Socket::from(client.take(hold("20000/tcp")).unwrap().unwrap());
        assert!(bind(Type::STREAM, "[::]:20000", true).is_err(), "held by the descriptor all the time");
        socket.listen(8).unwrap();
        connect_tcp("127.0.0.1:20000").unwrap();
        connect_tcp("[::1]:20000").unwrap();
        let udp = UdpSocket::from(client.take(hold("20001/udp")).unwrap().unwrap());
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let datagram = [7u8; 9000];
        sender.send_to(&datagram, "127.0.0.1:20001").unwrap();
        let mut buffer = [0u8; 10_000];
        udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(udp.recv(&mut buffer).unwrap(), 9000, "a receive buffer of normal size");
        assert_eq!(client.take(hold("20000/tcp")).unwrap().map(|_| ()), None);
        assert_eq!(client.count().unwrap(), 0);
    });
}

#[test]
fn what_a_client_leaves_is_there_for_the_next_one() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let mut first = connect(folder.path(), &[]);
        assert!(first.kept("door").unwrap().is_none());
        let (mut near, far) = UnixStream::pair().unwrap();
        first.keep("door", far.as_fd()).unwrap();
        drop((first, far));
        let mut second = connect(folder.path(), &[]);
        let mut kept = UnixStream::from(second.kept("door").unwrap().unwrap());
        assert!(second.kept("window").unwrap().is_none());
        kept.write_all(b"here").unwrap();
        let mut said = [0; 4];
        near.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"here");
        // It is open as long as the holder keeps it, and no longer.
        drop(kept);
        near.set_nonblocking(true).unwrap();
        assert_eq!(near.read(&mut said).unwrap_err().kind(), ErrorKind::WouldBlock);
        let (_, other) = UnixStream::pair().unwrap();
        second.keep("door", other.as_fd()).unwrap();
        eventually(Duration::from_secs(5), || matches!(near.read(&mut said), Ok(0)));
    });
}

#[test]
fn one_full_holder_is_followed_by_another() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let mut client = connect(folder.path(), &["--limit", "100"]);
        client.hold(&[hold("20000-20249/tcp")]).unwrap();
        assert_eq!(client.pids().len(), 3);
        assert_eq!(client.list().unwrap().iter().map(|h| h.ports.count()).sum::<u16>(), 250);
        let mut again = connect(folder.path(), &[]);
        assert_eq!(again.count().unwrap(), 250);
        let error = client.hold(&[hold("21000-22999/udp")]).unwrap_err();
        assert!(error.to_string().contains("have reached their limit of open files; raise it"), "{error}");
        assert_eq!(client.count().unwrap(), 250, "what was held for nothing is let go of");
        client.shutdown().unwrap();
    });
}

#[test]
fn a_holder_has_a_session_of_its_own() {
    let folder = Holders::new();
    let client = connect(folder.path(), &[]);
    let pid = Pid::from_raw(client.pids()[0].cast_signed());
    assert_eq!(rustix::process::getsid(pid).unwrap(), pid.unwrap());
    client.shutdown().unwrap();
}

#[test]
fn a_killed_holder_is_replaced_and_its_end_is_noticed() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let mut client = connect(folder.path(), &[]);
        client.hold(&[hold("20000/tcp")]).unwrap();
        let pid = client.pids()[0];
        kill(pid);
        eventually(Duration::from_secs(5), || bind(Type::STREAM, "[::]:20000", false).is_ok());
        client.hold(&[hold("20001/tcp")]).unwrap();
        assert!(client.take_lost());
        assert!(!client.take_lost());
        assert_eq!(client.list().unwrap(), [hold("20001/tcp")]);
        eventually(Duration::from_secs(5), || {
            client.count().unwrap();
            // Waited for: not even a zombie is left.
            PidIdentity::of(pid).is_none()
        });
    });
}

#[test]
fn a_holder_that_nobody_needs_ends_by_itself() {
    let folder = Holders::new();
    let client = connect(folder.path(), &["--idle-ms", "100"]);
    let holder = PidIdentity::of(client.pids()[0]).unwrap();
    assert!(holder.is_alive());
    drop(client);
    eventually(Duration::from_secs(10), || !holder.is_alive());
    assert!(!folder.path().join("holder.sock").exists());
}

#[test]
fn one_socket_has_one_holder() {
    let folder = Holders::new();
    let client = connect(folder.path(), &[]);
    let socket = folder.path().join("holder.sock");
    let second = Command::new(holder_program()).arg("--socket").arg(&socket).output().unwrap();
    let said = String::from_utf8(second.stdout).unwrap();
    assert_eq!(
        said.trim(),
        format!("failed: another holder serves {}: connect to it, or end it first", socket.display())
    );
    assert_eq!(connect(folder.path(), &[]).pids(), client.pids());
}

#[test]
fn a_holder_that_cannot_be_started_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("holder.sock");
    let missing = HolderClient::connect_or_spawn("/nowhere/holder".as_ref(), &[], &socket).unwrap_err();
    assert!(
        missing.to_string().starts_with("cannot start the holder of ports, /nowhere/holder: "),
        "{missing}"
    );
    let wrong = HolderClient::connect_or_spawn("/bin/false".as_ref(), &[], &socket).unwrap_err().to_string();
    assert!(wrong.contains("/bin/false ended with exit status: 1 and said nothing"), "{wrong}");
}

#[test]
fn the_socket_is_the_owners_alone() {
    let folder = Holders::new();
    let _client = connect(folder.path(), &[]);
    let mode = fs::metadata(folder.path().join("holder.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Not a test by itself: [`a_stranger_gets_no_answer`] runs it as another user.
#[test]
fn the_stranger_asks() {
    let Some(socket) = std::env::var_os("PORTOLAN_TEST_SOCKET") else { return };
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let question = b"\x00\x00\x00\x07\"hello\"";
    let _ = stream.write_all(question);
    let mut answer = Vec::new();
    // The end of the stream, or a reset because the question was not read.
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{answer:?}");
}

#[test]
fn a_stranger_gets_no_answer() {
    need_root!();
    let folder = Holders::new();
    let mut client = connect(folder.path(), &[]);
    // Somebody opened the door; the credentials of the peer still count (SO_PEERCRED, unix(7)).
    let socket = folder.path().join("holder.sock");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    // A copy that the other user may run, wherever the build is.
    let program = folder.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new(&program);
    command
        .args(["the_stranger_asks", "--exact"])
        .env("PORTOLAN_TEST_SOCKET", &socket)
        .uid(65_534)
        .gid(65_534);
    // ETXTBSY: a child that another test has just forked has the copy open for writing until it becomes its program.
    let output = eventually_ok(Duration::from_secs(5), || command.output()).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(client.count().unwrap(), 0, "the owner is still answered");
}

#[test]
fn nonsense_is_answered_and_does_not_disturb_the_others() {
    let folder = Holders::new();
    let mut client = connect(folder.path(), &[]);
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0\0\0\x02{}", b"\0\0\0\x05"] {
        let mut stream = UnixStream::connect(folder.path().join("holder.sock")).unwrap();
        stream.write_all(nonsense).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(nonsense.len() == 4 || String::from_utf8_lossy(&answer).contains("bad"), "{answer:?}");
    }
    assert_eq!(client.count().unwrap(), 0);
}

//! What a socket promises, against the kernel. None of it needs privileges, as it only reads.

use super::*;
use crate::message::{ACK, MessageWriter, REQUEST};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
/// The size of `struct ifinfomsg`.
const LINK: usize = 16;

#[test]
fn a_dump_of_links_has_the_loopback_with_its_name() {
    let socket = Socket::open(Bus::Route).unwrap();
    let names = socket
        .dump(
            RTM_GETLINK,
            |w| w.raw(&[0; LINK]),
            Vec::new,
            |names: &mut Vec<String>, message| {
                assert_eq!(message.kind, RTM_NEWLINK);
                names.extend(message.attributes(LINK).find(3).and_then(|a| a.str()).map(str::to_owned));
            },
        )
        .unwrap();
    assert!(names.contains(&"lo".to_owned()), "{names:?}");
}

#[test]
fn a_refusal_says_which_errno_and_leaves_the_socket_usable() {
    let socket = Socket::open(Bus::Route).unwrap();
    let mut header = [0; LINK];
    header[4..8].copy_from_slice(&0x7fff_fff0u32.to_ne_bytes());
    let error = socket.transact(RTM_DELLINK, 0, |w| w.raw(&header)).unwrap_err();
    assert!(error.is_absent() || error.is_denied(), "{error}");
    let links = socket.dump(RTM_GETLINK, |w| w.raw(&[0; LINK]), || 0, |count, _| *count += 1).unwrap();
    assert!(links > 0);
}

#[test]
fn a_late_answer_to_another_request_is_not_taken_for_ours() {
    let socket = Socket::open(Bus::Route).unwrap();
    let mut abandoned = MessageWriter::new();
    abandoned.begin(RTM_DELLINK, REQUEST | ACK, socket.next_sequence());
    abandoned.raw(&[0; LINK]);
    abandoned.finish().unwrap();
    socket.send(abandoned.as_bytes()).unwrap();
    let links = socket.dump(RTM_GETLINK, |w| w.raw(&[0; LINK]), || 0, |count, _| *count += 1);
    assert!(links.unwrap() > 0);
}

#[test]
fn receive_gives_up_when_its_time_is_over() {
    let socket = Socket::open(Bus::Route).unwrap();
    let start = Instant::now();
    assert!(!socket.receive(&mut Vec::new(), Some(Duration::from_millis(20))).unwrap());
    assert!(start.elapsed() >= Duration::from_millis(20));
}

#[test]
fn buffers_grow_with_privilege_and_are_kept_within_the_limit_without() {
    let socket = Socket::open(Bus::Netfilter).unwrap();
    let (send, receive) = socket.force_buffers(16 << 20).unwrap();
    if rustix::process::geteuid().is_root() {
        assert!(send >= 16 << 20 && receive >= 16 << 20, "{send} {receive}");
    }
    assert!(send > 0 && receive > 0);
}

#[test]
fn sequence_numbers_are_never_zero_nor_given_twice_in_a_row() {
    let socket = Socket::open(Bus::Route).unwrap();
    socket.sequence.store(u32::MAX, Ordering::Relaxed);
    assert_eq!((socket.next_sequence(), socket.next_sequence()), (u32::MAX, 1));
}

#[test]
fn a_batch_of_megabytes_goes_through_after_its_buffers_were_forced_and_says_so_before() {
    portolan_testkit::need_root!();
    const NOTHING: u16 = 1; // NLMSG_NOOP: the kernel passes over it, and acknowledges when asked to.
    let socket = Socket::open(Bus::Route).unwrap();
    let mut batch = MessageWriter::new();
    let mut last = 0;
    while batch.len() < 8 << 20 {
        last = socket.next_sequence();
        batch.begin(NOTHING, 0, last);
        batch.bytes(1, &[0; 60_000]);
        let message = batch.finish().unwrap();
        if batch.len() >= 8 << 20 {
            batch.acknowledge(&message);
        }
    }
    let error = socket.exchange(batch.as_bytes(), last, |_| {}).unwrap_err();
    assert!(matches!(error, NetlinkError::TooLarge { bytes } if bytes == batch.len()), "{error}");
    socket.force_buffers(batch.len()).unwrap();
    socket.exchange(batch.as_bytes(), last, |_| {}).unwrap();
}

#[test]
fn a_socket_goes_on_where_another_process_left_it() {
    let first = Socket::open(Bus::Route).unwrap();
    let mut writer = MessageWriter::new();
    writer.begin(RTM_GETLINK, REQUEST | crate::message::DUMP, first.next_sequence());
    writer.raw(&[0; LINK]);
    writer.finish().unwrap();
    // Its process is killed before it has read the answer.
    first.send(writer.as_bytes()).unwrap();
    let second = first.try_clone(Bus::Route).unwrap();
    assert_eq!(second.port_id(), first.port_id());
    drop(first);
    let links = second.dump(RTM_GETLINK, |w| w.raw(&[0; LINK]), || 0, |count, _| *count += 1).unwrap();
    assert!(links > 0);
    let copy = second.as_fd().try_clone_to_owned().unwrap();
    let error = Socket::adopt(Bus::Netfilter, copy).unwrap_err();
    assert!(error.to_string().contains("another kind"), "{error}");
}

//! Reads captures of other tools and corrupt captures.

use pcap_parser::{LegacyPcapBlock, PcapHeader, ToVec as _};
use probe_common::{
    encode::EncodedFrame,
    event::{ArpEvent, ClaimObservation, Hook},
    wire::{ArpFrame, MacAddr, Vlan},
};
use proptest::prelude::*;

use super::*;
use crate::{
    decode::CapturedFrame,
    host_comments::{CapturedAddress, CapturedGateway, CapturedInterface},
    writer::CaptureWriter,
};

const AT: u64 = 1_700_000_000_123_456_789;

fn announcement() -> ArpFrame {
    ArpFrame {
        eth_dst: MacAddr::BROADCAST,
        eth_src: MacAddr([2, 0, 0, 0, 0, 1]),
        oper: 1,
        sha: MacAddr([2, 0, 0, 0, 0, 1]),
        spa: [192, 0, 2, 1],
        tpa: [192, 0, 2, 1],
        ..ArpFrame::default()
    }
}

/// A pcap file with one frame, with the time resolution of the magic number.
fn pcap(magic: u32, big_endian: bool, link: u32) -> Vec<u8> {
    let word = |value: u32| {
        if big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    };
    let fraction = if magic == 0xa1b2_3c4d {
        123_456_789
    } else {
        123_456
    };
    let frame = EncodedFrame::new(&announcement());
    let length = u32::try_from(frame.len()).unwrap();
    let version = if big_endian {
        [0, 2, 0, 4]
    } else {
        [2, 0, 4, 0]
    };
    let mut file = word(magic).to_vec();
    file.extend(version);
    for value in [0, 0, 65_535, link, 1_700_000_000, fraction, length, length] {
        file.extend(word(value));
    }
    file.extend(frame.iter());
    file
}

fn read(file: &[u8]) -> (Vec<CaptureItem>, Result<(), CaptureError>) {
    let mut items = Vec::new();
    let mut reader = match CaptureReader::new(file) {
        Ok(reader) => reader,
        Err(error) => return (items, Err(error)),
    };
    loop {
        match reader.next_item() {
            Ok(Some(item)) => items.push(item),
            Ok(None) => return (items, Ok(())),
            Err(error) => return (items, Err(error)),
        }
    }
}

fn frames(items: &[CaptureItem]) -> Vec<CapturedFrame> {
    let frames = items.iter().filter_map(|item| match item {
        CaptureItem::Frame(captured) => Some(*captured),
        CaptureItem::Other | CaptureItem::Host | CaptureItem::End(_) => None,
    });
    frames.collect()
}

#[test]
fn every_byte_order_and_time_resolution_gives_the_same_frame() {
    for (magic, big_endian, at_ns) in [
        (0xa1b2_c3d4, false, AT - 789),
        (0xa1b2_c3d4, true, AT - 789),
        (0xa1b2_3c4d, false, AT),
        (0xa1b2_3c4d, true, AT),
    ] {
        let (items, outcome) = read(&pcap(magic, big_endian, 1));
        assert_eq!(outcome, Ok(()));
        let [captured] = frames(&items)[..] else {
            panic!("{items:?}");
        };
        assert_eq!((captured.at_ns, captured.frame), (at_ns, announcement()));
        assert_eq!((captured.hook, captured.comment), (Hook::TcIngress, None));
    }
}

fn event() -> ArpEvent {
    ArpEvent {
        ktime_ns: AT,
        request_ns: AT - 5,
        previous: ClaimObservation {
            ktime_ns: AT - 9,
            request_ns: AT - 11,
            mac: MacAddr([2, 0, 0, 0, 0, 2]),
            flags: 3,
            padding: 0,
        },
        ifindex: 7,
        kind: announcement().kind().number(),
        hook: Hook::TcEgress.number(),
        frame: announcement(),
    }
}

fn interface() -> CapturedInterface {
    CapturedInterface {
        name: "eth0".to_owned(),
        mac: Some(MacAddr([2, 0, 0, 0, 0, 7])),
        addresses: vec![CapturedAddress {
            ip: "192.0.2.1".parse().unwrap(),
            vlan: Vlan([100, 0]),
            mac: MacAddr([2, 0, 0, 0, 0, 7]),
            broadcast: Some("192.0.2.255".parse().unwrap()),
        }],
        gateways: vec![CapturedGateway {
            vlan: Vlan([100, 0]),
            ip: "192.0.2.254".parse().unwrap(),
        }],
    }
}

fn own_capture() -> Vec<u8> {
    let mut writer = CaptureWriter::new(Vec::new()).unwrap();
    writer.interface(7, &interface()).unwrap();
    writer.event(&event()).unwrap();
    writer.finish(AT + 1_000).unwrap()
}

#[test]
fn own_captures_contain_all_fields_of_the_events() {
    let file = own_capture();
    let mut reader = CaptureReader::new(file.as_slice()).unwrap();
    let mut items = Vec::new();
    while let Some(item) = reader.next_item().unwrap() {
        items.push(item);
    }
    let [captured] = frames(&items)[..] else {
        panic!("{items:?}");
    };
    let expected = ArpEvent {
        ifindex: captured.interface,
        ..event()
    };
    assert_eq!(captured.event(), Some(expected));
    assert_eq!(reader.host().interfaces[&captured.interface], interface());
    assert_eq!(items.last(), Some(&CaptureItem::End(AT + 1_000)));
}

#[test]
fn an_interface_that_is_described_again_keeps_its_index() {
    let mut writer = CaptureWriter::new(Vec::new()).unwrap();
    let before = CapturedInterface {
        addresses: Vec::new(),
        ..interface()
    };
    writer.interface(event().ifindex, &before).unwrap();
    writer.event(&event()).unwrap();
    writer.interface(event().ifindex, &interface()).unwrap();
    writer.event(&event()).unwrap();
    let file = writer.finish(AT + 1_000).unwrap();

    let mut reader = CaptureReader::new(file.as_slice()).unwrap();
    let mut items = Vec::new();
    while let Some(item) = reader.next_item().unwrap() {
        items.push(item);
    }
    let [first, second] = frames(&items)[..] else {
        panic!("{items:?}");
    };
    assert_eq!(first.interface, second.interface);
    assert_eq!(reader.host().interfaces[&first.interface], interface());
    assert_ne!(before, interface(), "the description changes");
}

#[test]
fn a_truncated_capture_yields_its_complete_frames() {
    for file in [pcap(0xa1b2_c3d4, false, 1), own_capture()] {
        let all_frames = frames(&read(&file).0);
        for length in 0..file.len() {
            let (items, outcome) = read(&file[..length]);
            let found = frames(&items);
            assert!(
                found.is_empty() || found == all_frames,
                "{length}: {items:?}"
            );
            if outcome.is_ok() {
                // The end of a block is a valid end of the file.
                assert!(length >= 24, "{length} bytes are not a capture");
            }
        }
        assert!(read(&file).1.is_ok());
    }
    let file = pcap(0xa1b2_c3d4, false, 1);
    assert_eq!(
        read(&file[..file.len() - 1]).1,
        Err(CaptureError::Truncated(0))
    );
}

#[test]
fn other_files_are_rejected() {
    for file in [&b""[..], b"PK\x03\x04", &[0; 100]] {
        assert_eq!(read(file).1, Err(CaptureError::NotACapture), "{file:?}");
    }
    let cut_off_gzip = [0x1f, 0x8b, 8, 0];
    assert_eq!(read(&cut_off_gzip).1, Err(CaptureError::Unreadable(0)));
}

/// A pcapng section in little-endian order with an Ethernet interface and one block.
fn pcapng(kind: u32, body: &[u8]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let length = u32::try_from(12 + body.len()).unwrap().to_le_bytes();
        [&kind.to_le_bytes()[..], &length, body, &length].concat()
    };
    let section = [
        &0x1a2b_3c4d_u32.to_le_bytes()[..],
        &[1, 0, 0, 0],
        &[0xff; 8],
    ]
    .concat();
    [
        block(0x0a0d_0d0a, &section),
        block(1, &[1, 0, 0, 0, 0, 0, 0, 0]),
        block(kind, body),
    ]
    .concat()
}

/// The announcement, padded to a multiple of four bytes as pcapng requires, and its length before.
fn padded_announcement() -> (Vec<u8>, u32) {
    let frame = EncodedFrame::new(&announcement());
    let length = u32::try_from(frame.len()).unwrap();
    let mut bytes: Vec<u8> = frame.iter().copied().collect();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    (bytes, length)
}

#[test]
fn packets_without_a_time_are_an_error_and_not_an_empty_capture() {
    let (frame, length) = padded_announcement();
    let body = [&length.to_le_bytes()[..], &frame].concat();
    let (items, outcome) = read(&pcapng(3, &body));
    assert_eq!(outcome, Err(CaptureError::NoTimes));
    assert!(frames(&items).is_empty());
}

#[test]
fn obsolete_packet_blocks_are_read() {
    let (frame, length) = padded_announcement();
    let microseconds = AT / 1_000;
    let [high, low] = [microseconds >> 32, microseconds & u64::from(u32::MAX)]
        .map(|half| u32::try_from(half).unwrap());
    let words = [0, high, low, length, length]
        .map(u32::to_le_bytes)
        .concat();
    let (items, outcome) = read(&pcapng(2, &[words, frame].concat()));
    assert_eq!(outcome, Ok(()));
    let captured = frames(&items)[0];
    assert_eq!(captured.frame, announcement());
    assert_eq!(captured.at_ns, microseconds * 1_000);
}

#[test]
fn packets_of_the_pseudo_device_any_have_direction_and_interface() {
    let frame = EncodedFrame::new(&announcement());
    let arp: Vec<u8> = frame.iter().skip(14).copied().collect();
    let sha = announcement().sha.0;
    for (kind, hook) in [(1, Hook::TcIngress), (4, Hook::TcEgress)] {
        let sll = [&[0, kind, 0, 1, 0, 6][..], &sha, &[0, 0, 8, 6], &arp].concat();
        let header = [8, 6, 0, 0, 0, 0, 0, 7, 0, 1, kind, 6];
        let sll2 = [&header[..], &sha, &[0, 0], &arp].concat();
        for (link, packet, name) in [(113, sll, UNNAMED), (276, sll2, "if7")] {
            let mut file = pcap(0xa1b2_c3d4, false, link);
            file.truncate(24 + 8);
            let length = u32::try_from(packet.len()).unwrap().to_le_bytes();
            file.extend([length, length].concat());
            file.extend(packet);
            let mut reader = CaptureReader::new(&file[..]).unwrap();
            let mut captured = None;
            while let Some(item) = reader.next_item().unwrap() {
                if let CaptureItem::Frame(frame) = item {
                    captured = Some(frame);
                }
            }
            let captured = captured.unwrap();
            assert_eq!((captured.frame, captured.hook), (announcement(), hook));
            assert_eq!(reader.interface(captured.interface), name);
        }
    }
}

#[test]
fn other_link_types_are_reported() {
    let (items, outcome) = read(&pcap(0xa1b2_c3d4, false, 127));
    assert_eq!(outcome, Err(CaptureError::LinkType(127)));
    assert!(frames(&items).is_empty());
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("tcpdump -i eth0"), "{error}");
}

#[test]
fn corruption_differs_from_truncation_and_keeps_the_frames_before() {
    let mut file = pcap(0xa1b2_c3d4, false, 1);
    let record = file[24..].to_vec();
    for _ in 0..9 {
        file.extend(&record);
    }
    // A record with a length of 4 GiB.
    file.extend([0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    file.resize(file.len() + (40 << 20), 0);
    let (items, outcome) = read(&file);
    assert_eq!(frames(&items).len(), 10);
    let offset = 24 + 10 * u64::try_from(record.len()).unwrap();
    assert_eq!(
        outcome,
        Err(CaptureError::Corrupt {
            packets: 10,
            offset
        })
    );
}

#[test]
fn a_packet_larger_than_the_buffer_is_skipped() {
    let mut file = PcapHeader::new().to_vec().unwrap();
    let large = vec![0xff; BUFFER + 1000];
    let length = u32::try_from(large.len()).unwrap();
    let mut packet = |data: &[u8], length| {
        let mut block = LegacyPcapBlock {
            ts_sec: 1,
            ts_usec: 2,
            caplen: length,
            origlen: length,
            data,
        };
        file.extend(block.to_vec().unwrap());
    };
    packet(&large, length);
    packet(&EncodedFrame::new(&announcement()), 42);
    let (items, outcome) = read(&file);
    assert_eq!((frames(&items).len(), outcome), (1, Ok(())));
}

#[test]
fn interface_names_contain_no_control_characters() {
    let mut writer = CaptureWriter::new(Vec::new()).unwrap();
    let name = "eth0\u{1b}[2J\n".to_owned();
    writer
        .interface(
            1,
            &CapturedInterface {
                name,
                ..interface()
            },
        )
        .unwrap();
    let file = writer.finish(AT).unwrap();
    let mut reader = CaptureReader::new(file.as_slice()).unwrap();
    while reader.next_item().unwrap().is_some() {}
    assert_eq!(reader.interface(1), "eth0?[2J?");
}

proptest! {
    #[test]
    fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = read(&bytes);
    }

    #[test]
    fn no_corruption_causes_a_panic(
        is_own: bool, big_endian: bool,
        corruption in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let mut file = if is_own { own_capture() } else { pcap(0xa1b2_c3d4, big_endian, 1) };
        for (at, byte) in corruption {
            let at = at.index(file.len());
            file[at] = byte;
        }
        let _ = read(&file);
    }
}

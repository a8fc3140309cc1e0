use proptest::prelude::*;

use super::*;

const MASK: [u8; 4] = [1, 2, 3, 0xfe];

fn read(bytes: &[u8]) -> Result<Vec<Event>, Fault> {
    read_in_pieces(bytes, bytes.len().max(1))
}

fn read_in_pieces(bytes: &[u8], step: usize) -> Result<Vec<Event>, Fault> {
    let (mut reader, mut received, mut events) = (Reader::new(From::Client, 1000), Vec::new(), Vec::new());
    for piece in bytes.chunks(step) {
        received.extend_from_slice(piece);
        while let Some(event) = reader.next(&mut received)? {
            events.push(event);
        }
    }
    Ok(events)
}

/// A client's frame with a first byte of choice.
fn odd(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = frame(Opcode::Text, payload, Some(MASK));
    frame[0] = first;
    frame
}

#[test]
fn the_rfcs_own_examples() {
    assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ==").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    for bad in ["", "x", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQo=", "AAAA"] {
        assert_eq!(accept(bad), None, "{bad:?}");
    }
    assert_eq!(frame(Opcode::Text, b"Hello", None), b"\x81\x05Hello");
    let masked = frame(Opcode::Text, b"Hello", Some([0x37, 0xfa, 0x21, 0x3d]));
    assert_eq!(masked, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    assert_eq!(read(&masked).unwrap(), [Event::Message(b"Hello".to_vec())]);
    let parts = [odd(0x01, b"Hel"), frame(Opcode::Ping, b"!", Some(MASK)), odd(0x80, b"lo")].concat();
    let events = [Event::Ping(b"!".to_vec()), Event::Message(b"Hello".to_vec())];
    assert_eq!(read(&parts).unwrap(), events);
    assert_eq!(frame(Opcode::Binary, &[0; 256], None)[..4], *b"\x82\x7e\x01\x00");
    assert_eq!(frame(Opcode::Binary, &[0; 65536], None)[..10], *b"\x82\x7f\0\0\0\0\0\x01\0\0");
}

#[test]
fn what_breaks_the_protocol_is_refused_at_its_first_bytes() {
    let protocol = |bytes: &[u8]| matches!(read(bytes), Err(Fault::Protocol(_)));
    assert!(protocol(&frame(Opcode::Text, b"a", None)), "not masked");
    assert!(protocol(&odd(0xc1, b"a")) && protocol(&odd(0xb1, b"a")) && protocol(&odd(0x91, b"a")));
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert!(protocol(&odd(0x80 | opcode, b"")), "{opcode}");
    }
    assert!(protocol(&odd(0x09, b"")), "a ping in pieces");
    assert!(protocol(&odd(0x89, &[0; 126])) && read(&odd(0x89, &[0; 125])).is_ok());
    assert!(protocol(&odd(0x80, b"a")), "a continuation of nothing");
    assert!(protocol(&[odd(0x01, b"a"), odd(0x81, b"b")].concat()));
    assert!(protocol(b"\x81\xfe\x00\x05") && protocol(b"\x81\xff\0\0\0\0\0\0\xff\xff"));
    assert!(protocol(b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff"));
    // Long before a byte of it has come, and in pieces as well.
    assert_eq!(read(b"\x81\xff\0\0\0\0\x80\0\0\0"), Err(Fault::TooBig));
    assert_eq!(read(&odd(0x81, &[0; 1001])[..8]), Err(Fault::TooBig));
    assert!(read(&odd(0x81, &[0; 1000])).is_ok());
    assert_eq!(read(&[odd(0x01, &[0; 600]), odd(0x80, &[0; 401])].concat()), Err(Fault::TooBig));
    assert_eq!((Fault::TooBig.code(), Fault::Protocol("").code()), (1009, 1002));
    assert!(matches!(
        Reader::new(From::Server, 9).next(&mut frame(Opcode::Text, b"a", Some(MASK))),
        Err(Fault::Protocol(_))
    ));
}

#[test]
fn closing_has_a_code_that_may_be_sent() {
    let closed = |payload: &[u8]| read(&frame(Opcode::Close, payload, Some(MASK)));
    assert_eq!(closed(b"").unwrap(), [Event::Close(None, String::new())]);
    assert_eq!(closed(b"\x03\xe8bye").unwrap(), [Event::Close(Some(1000), "bye".into())]);
    assert_eq!(read(&close(1013, "later", Some(MASK))).unwrap(), [Event::Close(Some(1013), "later".into())]);
    for bad in [&b"\x03"[..], b"\0\0", b"\x03\xed", b"\x03\xee", b"\x03\xf7", b"\xff\xff", b"\x03\xe8\xff"] {
        assert!(closed(bad).is_err(), "{bad:?}");
    }
    let long = close(1000, &"\u{e9}".repeat(100), None);
    assert_eq!(long.len(), 2 + CONTROL_MAX - 1);
    assert!(std::str::from_utf8(&long[4..]).is_ok());
}

proptest! {
    #[test]
    fn what_is_sent_is_received(
        payload in prop::collection::vec(any::<u8>(), 0..1000),
        mask in any::<[u8; 4]>(),
        step in 1_usize..40,
    ) {
        let sent = frame(Opcode::Binary, &payload, Some(mask));
        prop_assert_eq!(read_in_pieces(&sent, step).unwrap(), [Event::Message(payload)]);
    }

    #[test]
    fn pieces_change_nothing_and_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        crate::wire::fuzz::websocket(&bytes);
    }
}

//! The codec against whole, cut, joined, mutated and random streams.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod samples;

use proptest::prelude::*;
use protocol::{
    Decoder, EncodeError, FrameError, MAX_CHUNK, MAX_FRAME, MAX_MESSAGE, OutputKind, ToGuest,
    ToHost, encode,
};

fn frame(message: &ToGuest) -> Vec<u8> {
    let mut out = Vec::new();
    encode(message, &mut out).unwrap();
    out
}

fn decode_all(mut input: &[u8]) -> Vec<Result<ToGuest, FrameError>> {
    let mut decoder = Decoder::default();
    std::iter::from_fn(|| decoder.decode(&mut input)).collect()
}

#[test]
fn every_message_survives_the_journey() {
    for message in samples::to_guest() {
        assert_eq!(decode_all(&frame(&message)), [Ok(message)]);
    }
    for message in samples::to_host() {
        let mut out = Vec::new();
        encode(&message, &mut out).unwrap();
        let mut decoder = Decoder::<ToHost>::default();
        assert_eq!(decoder.decode(&mut &out[..]), Some(Ok(message)));
    }
}

#[test]
fn a_cut_frame_is_dropped_and_the_next_one_is_read() {
    let cut = frame(&samples::to_guest()[1]);
    let whole = ToGuest::Quiesce { call: 5 };
    for len in 0..cut.len() - 1 {
        let mut stream = cut[..len].to_vec();
        stream.push(0);
        stream.extend(frame(&whole));
        let mut messages = decode_all(&stream);
        assert_eq!(messages.pop(), Some(Ok(whole.clone())), "cut at {len}");
        assert!(messages.iter().all(Result::is_err), "cut at {len}");
    }
}

#[test]
fn a_frame_without_end_is_bounded_and_skipped() {
    let mut decoder = Decoder::<ToGuest>::default();
    let garbage = vec![1; MAX_FRAME];
    for _ in 0..4 {
        assert_eq!(decoder.decode(&mut &garbage[..]), None);
    }
    let mut rest = &[&[0][..], &frame(&ToGuest::Quiesce { call: 1 })].concat()[..];
    assert_eq!(decoder.decode(&mut rest), Some(Err(FrameError::TooLong)));
    assert_eq!(
        decoder.decode(&mut rest),
        Some(Ok(ToGuest::Quiesce { call: 1 }))
    );
}

#[test]
fn the_largest_message_fits_and_a_larger_one_is_refused_without_a_trace() {
    let message = |len| ToGuest::Data {
        call: 1,
        bytes: vec![0xff; len],
    };
    // One byte each for the kind and the call, three for the length.
    let largest = message(MAX_MESSAGE - 5);
    let bytes = frame(&largest);
    assert!(bytes.len() <= MAX_FRAME + 1);
    assert_eq!(decode_all(&bytes), [Ok(largest)]);
    let mut out = vec![42];
    assert!(matches!(
        encode(&message(MAX_MESSAGE), &mut out),
        Err(EncodeError::TooLong { .. })
    ));
    assert_eq!(out, [42]);
}

#[test]
fn bytes_behind_a_message_are_no_message() {
    let mut payload = postcard::to_allocvec(&ToGuest::Quiesce { call: 1 }).unwrap();
    payload.push(7);
    payload.extend(crc32fast::hash(&payload).to_le_bytes());
    let mut stream = cobs::encode_vec(&payload);
    stream.push(0);
    assert_eq!(
        decode_all(&stream),
        [Err(FrameError::Unknown { answers: None })]
    );
}

#[test]
fn an_answer_of_another_version_is_known_by_its_nonce() {
    let read = |content: &[u8]| {
        let mut payload = content.to_vec();
        payload.extend(crc32fast::hash(&payload).to_le_bytes());
        let mut stream = cobs::encode_vec(&payload);
        stream.push(0);
        Decoder::<ToHost>::default().decode(&mut &stream[..])
    };
    // Kind, nonce 300, and then something else than is expected there.
    for kind in [0, 1] {
        let answers = Some(300);
        assert_eq!(
            read(&[kind, 0xac, 2]),
            Some(Err(FrameError::Unknown { answers }))
        );
    }
    for other in [&[2, 0xac, 2][..], &[0], &[0, 0xac]] {
        let answers = None;
        assert_eq!(read(other), Some(Err(FrameError::Unknown { answers })));
    }
}

#[test]
fn only_payload_costs_credit() {
    assert_eq!(
        ToGuest::Data {
            call: 1,
            bytes: vec![0; MAX_CHUNK]
        }
        .cost(),
        MAX_CHUNK as u32 + 64
    );
    assert_eq!(
        ToHost::Data {
            call: 1,
            kind: OutputKind::File,
            bytes: vec![]
        }
        .cost(),
        64
    );
    assert_eq!(
        ToHost::EntryEnd {
            call: 1,
            last: false
        }
        .cost(),
        64
    );
    assert_eq!(ToHost::Done { call: 1 }.cost(), 0);
}

fn any_message() -> impl Strategy<Value = ToGuest> {
    prop_oneof![
        prop::sample::select(samples::to_guest()),
        (any::<u32>(), prop::collection::vec(any::<u8>(), 0..2000))
            .prop_map(|(call, bytes)| ToGuest::Data { call, bytes }),
        (any::<u32>(), ".*", any::<bool>()).prop_map(|(call, path, follow)| ToGuest::Stat {
            call,
            path,
            follow
        }),
    ]
}

proptest! {
    #[test]
    fn messages_come_out_as_they_went_in_however_the_stream_is_cut(
        messages in prop::collection::vec(any_message(), 0..8),
        cuts in prop::collection::vec(1_usize..700, 1..20),
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(frame).collect();
        let mut decoder = Decoder::<ToGuest>::default();
        let mut found = Vec::new();
        let mut rest = &stream[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (mut piece, tail) = rest.split_at((*cut).min(rest.len()));
            rest = tail;
            while let Some(message) = decoder.decode(&mut piece) {
                found.push(message.unwrap());
            }
        }
        prop_assert_eq!(found, messages);
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
        let _ = decode_all(&bytes);
    }

    /// Valid checksums in front of random content: what a hostile guest can send.
    #[test]
    fn random_content_of_sound_frames_does_no_harm(mut payload in prop::collection::vec(any::<u8>(), 0..300)) {
        payload.extend(crc32fast::hash(&payload).to_le_bytes());
        let mut stream = cobs::encode_vec(&payload);
        stream.push(0);
        let mut decoder = Decoder::<ToHost>::default();
        let _ = decoder.decode(&mut &stream[..]);
        let _ = decode_all(&stream);
    }

    #[test]
    fn a_changed_byte_spoils_its_frames_and_no_others(
        messages in prop::collection::vec(any_message(), 3),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let frames: Vec<Vec<u8>> = messages.iter().map(frame).collect();
        let mut stream = frames.concat();
        let middle = frames[0].len()..frames[0].len() + frames[1].len();
        let position = middle.start + at.index(middle.len());
        stream[position] ^= flip;
        let found: Vec<ToGuest> = decode_all(&stream).into_iter().flatten().collect();
        prop_assert_eq!(&found[0], &messages[0]);
        // The delimiter between the second and the third may be the byte that was hit.
        let delimiter = position == middle.end - 1;
        prop_assert_eq!(found.len(), if delimiter { 1 } else { 2 });
        prop_assert!(delimiter || found[1] == messages[2]);
    }
}

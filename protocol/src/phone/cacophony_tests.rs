//! The cryptography agrees with the test vectors of cacophony, an independent implementation of Noise.

use super::noise::{KeyPair, StaticKey, Transport, transport_of};
use super::record::HEADER_BYTES;
use super::resolver::Resolver;
use std::boxed::Box;
use std::vec::Vec;

const PROLOGUE: &[u8] = b"John Galt";
const INITIATOR_STATIC: &str = "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1";
const INITIATOR_EPHEMERAL: &str = "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a";
const RESPONDER_STATIC: &str = "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893";
const RESPONDER_EPHEMERAL: &str = "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b";
const RESPONDER_PUBLIC: &str = "31e0303fd6418d2f8c0e78b91f22e8caed0fbe48656dcf4767e4834f701b8f62";
/// Payload and ciphertext of each message; the sides take turns.
#[rustfmt::skip]
const IK: [(&str, &str); 6] = [
    ("4c756477696720766f6e204d69736573",
     "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79444e417bc55c7a8166c993356c1be41ef6\
      7818a292426f301556c7f26b21d25ddb097153891a9a956cff47b83e63ad8d701c1342c209cff1ca5ecd43402762ac24\
      9e3bd3a4c0a145fe07cb5dae28ea13a3"),
    ("4d757272617920526f746862617264",
     "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843af2ccf9972e22afc67aeafcd25162f7f\
      98c363b7762e3e4cb7d272e39f27a5"),
    ("462e20412e20486179656b",
     "66acfc92e3197de166809e6d4d5d003dcc819a84bc3522ca53c9d9"),
    ("4361726c204d656e676572",
     "71f89aa6533a6de70b0826864dd75f60806ee40170c16290189eb3"),
    ("4a65616e2d426170746973746520536179",
     "4795a3423550c8bf00386bd496a3e2c76c10669d2a75ab8f79b5094c5412a25705"),
    ("457567656e2042f6686d20766f6e2042617765726b",
     "aa0bb39097555c918e40be82abc2b909eb79d9eb87adb07e268fc37323a6cf904fd01fb391"),
];
/// Payload and ciphertext of each message; the sides take turns.
#[rustfmt::skip]
const XX: [(&str, &str); 6] = [
    ("4c756477696720766f6e204d69736573",
     "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79444c756477696720766f6e204d69736573"),
    ("4d757272617920526f746862617264",
     "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843757117acceb05bd7a45733bc22015c97\
      a9d0cbaf41b80446d5988ff5127235d76b79eade70f473d6a4ef521fdcbeda5340d01e028ba793fc059f2724a83af05f\
      12dda0448a7621a926b379a92477fd"),
    ("462e20412e20486179656b",
     "c90f1cf77eba4e50edb038991565e36c9758943a989229b6051244dc4fbecb6946744b401af2ee1a5881b65fbb87fd07\
      cb6a328ececc9ce6ce84c399dc332d4fd521fa4bb7f467ce909395"),
    ("4361726c204d656e676572",
     "bc3fa77f6aca3e8466d7dc6bea10013e88a6a29add5132b461806c"),
    ("4a65616e2d426170746973746520536179",
     "250b01074cdfe0df2ecf8ccbf1737b15a2ddb5b52fd9a396604e9c793cee3b3bb9"),
    ("457567656e2042f6686d20766f6e2042617765726b",
     "449d4d433b3cdc3d02bf6fc881774b9df54366ebcffb9689bb13f14709822cd7ef42bcdb4d"),
];

/// The psk of `NNpsk0`: "This is my Austrian perspective!".
const PSK: &str = "54686973206973206d7920417573747269616e20706572737065637469766521";
/// Payload and ciphertext of each message; the sides take turns.
#[rustfmt::skip]
const NN_PSK0: [(&str, &str); 6] = [
    ("4c756477696720766f6e204d69736573",
     "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79447c37a89fc17813788d30df2d59501d60\
      66f5f8aecc3406bbd9829f2d24a531b1"),
    ("4d757272617920526f746862617264",
     "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f1448088432f29d79368ef9de4e1ae7a362fb05bf0\
      ad668e026bf5714554497b3a720461"),
    ("462e20412e20486179656b",
     "7c01e898a6201f36aecee532e29cd0b7f8ffa29d3366ad0dce39a6"),
    ("4361726c204d656e676572",
     "a9ff535aace3db6a1da1a7fb00fe2de2622bb373abad9fb42c00e0"),
    ("4a65616e2d426170746973746520536179",
     "6cfc49a3e65472edc2d0152abe5ce950170a8a47c959f30bd48b5f0aacf29adbfd"),
    ("457567656e2042f6686d20766f6e2042617765726b",
     "9bc86e6d974ed21ba04604a94aa68de21677eb409ead070c0cd569b069ee19ba142aa4c1a9"),
];

pub(super) fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    assert!(digits.len().is_multiple_of(2), "half a byte");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn side(name: &str, initiator: bool) -> snow::HandshakeState {
    let [private, ephemeral] = if initiator {
        [INITIATOR_STATIC, INITIATOR_EPHEMERAL]
    } else {
        [RESPONDER_STATIC, RESPONDER_EPHEMERAL]
    };
    let (private, ephemeral, psk) = (from_hex(private), from_hex(ephemeral), from_hex(PSK));
    let remote = from_hex(RESPONDER_PUBLIC);
    let by_psk = name.contains("psk");
    let static_key =
        (!by_psk).then(|| StaticKey::new(&KeyPair::from_seed(private.as_slice().try_into().unwrap())));
    let private = static_key.as_ref().map(|key| key.pair().private);
    let resolver = Box::new(Resolver { static_key, seed: [0; 32] });
    let mut builder = snow::Builder::with_resolver(name.parse().unwrap(), resolver)
        .prologue(PROLOGUE)
        .unwrap()
        .fixed_ephemeral_key_for_testing_only(&ephemeral);
    if let Some(private) = &private {
        builder = builder.local_private_key(private).unwrap();
    }
    if by_psk {
        builder = builder.psk(0, psk.as_array().unwrap()).unwrap();
    }
    if initiator && name.contains("IK") {
        builder = builder.remote_public_key(&remote).unwrap();
    }
    if initiator { builder.build_initiator().unwrap() } else { builder.build_responder().unwrap() }
}

fn check(name: &str, handshake_count: usize, messages: &[(&str, &str)]) {
    let mut sides = [side(name, true), side(name, false)];
    let mut buffer = [0; 512];
    for (turn, (payload, ciphertext)) in messages[..handshake_count].iter().enumerate() {
        let bytes = sides[turn % 2].write_message(&from_hex(payload), &mut buffer).unwrap();
        assert_eq!(buffer[..bytes], from_hex(ciphertext)[..], "{name}, message {turn}");
        let mut read = [0; 512];
        let read_bytes = sides[(turn + 1) % 2].read_message(&buffer[..bytes], &mut read).unwrap();
        assert_eq!(read[..read_bytes], from_hex(payload)[..], "{name}, message {turn}");
    }
    let mut transports = sides.map(|mut side| transport_of(&mut side));
    for (turn, (payload, ciphertext)) in messages.iter().enumerate().skip(handshake_count) {
        let mut out = Vec::new();
        let mark = Transport::begin(&mut out);
        out.extend_from_slice(&from_hex(payload));
        transports[turn % 2].seal(&mut out, mark);
        assert_eq!(out[HEADER_BYTES..], from_hex(ciphertext)[..], "{name}, message {turn}");
        let plain = transports[(turn + 1) % 2].open(&mut out[HEADER_BYTES..]).unwrap();
        assert_eq!(plain, from_hex(payload), "{name}, message {turn}");
    }
}

#[test]
fn ik_agrees() {
    check("Noise_IK_25519_AESGCM_SHA256", 2, &IK);
}

#[test]
fn xx_agrees() {
    check("Noise_XX_25519_AESGCM_SHA256", 3, &XX);
}

#[test]
fn nn_psk0_agrees() {
    check("Noise_NNpsk0_25519_AESGCM_SHA256", 2, &NN_PSK0);
}

#[test]
fn public_keys_agree() {
    let private = from_hex(RESPONDER_STATIC);
    let keys = KeyPair::from_seed(private[..].try_into().unwrap());
    assert_eq!(keys.public[..], from_hex(RESPONDER_PUBLIC)[..]);
}

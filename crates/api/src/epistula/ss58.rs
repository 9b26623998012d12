//! Addresses of substrate: base 58 over a prefix, the public key and two bytes of BLAKE2b.

use blake2::{Blake2b512, Digest};

const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// Prefix of generic addresses, the only one whose form is one byte and that Bittensor uses.
const PREFIX: u8 = 42;
/// Longest address of 35 bytes.
const TEXT_MAX: usize = 48;

/// The public key in an address; none if it is no generic address of 32 bytes.
pub fn from_ss58(text: &str) -> Option<[u8; 32]> {
    if text.len() > TEXT_MAX {
        return None;
    }
    // Little-endian number in base 256.
    let mut number: Vec<u8> = Vec::new();
    for symbol in text.bytes() {
        let mut carry = ALPHABET.iter().position(|known| *known == symbol)? as u32;
        for byte in &mut number {
            carry += u32::from(*byte) * 58;
            *byte = carry as u8;
            carry >>= 8;
        }
        if carry > 0 {
            number.push(carry as u8);
        }
    }
    number.reverse();
    let (body, sum) = number.split_at_checked(33)?;
    let good = sum.len() == 2 && body[0] == PREFIX && checksum(body) == sum;
    good.then(|| body[1..].try_into().ok())?
}

/// The generic address of a public key.
pub fn to_ss58(key: &[u8; 32]) -> String {
    let mut body = vec![PREFIX];
    body.extend_from_slice(key);
    let sum = checksum(&body);
    body.extend_from_slice(&sum);
    // Little-endian number in base 58.
    let mut digits: Vec<u8> = Vec::new();
    for byte in body {
        let mut carry = u32::from(byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = (carry % 58) as u8;
            carry /= 58;
        }
        while carry > 0 {
            digits.push((carry % 58) as u8);
            carry /= 58;
        }
    }
    digits.iter().rev().map(|digit| char::from(ALPHABET[usize::from(*digit)])).collect()
}

fn checksum(body: &[u8]) -> [u8; 2] {
    let hash = Blake2b512::new().chain_update(b"SS58PRE").chain_update(body).finalize();
    [hash[0], hash[1]]
}

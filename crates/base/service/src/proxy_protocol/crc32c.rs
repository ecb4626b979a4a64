//! The checksum CRC32C (Castagnoli), a byte at a time.

/// The polynomial, lowest bit first.
const POLYNOMIAL: u32 = 0x82f6_3b78;

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut value: u8 = 0;
    loop {
        let mut rest = value as u32;
        let mut bit = 0;
        while bit < 8 {
            let carry = rest & 1;
            rest >>= 1;
            if carry == 1 {
                rest ^= POLYNOMIAL;
            }
            bit += 1;
        }
        table[value as usize] = rest;
        if value == u8::MAX {
            return table;
        }
        value += 1;
    }
}

/// Returns the checksum of these parts, one after the other.
pub(super) fn crc32c(parts: [&[u8]; 3]) -> u32 {
    let bytes = parts.into_iter().flatten();
    let rest = bytes.fold(u32::MAX, |rest, byte| {
        let [low, ..] = rest.to_le_bytes();
        (rest >> 8) ^ TABLE[usize::from(low ^ byte)]
    });
    !rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_values_come_out() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        // The check value of CRC-32/ISCSI, and the examples of RFC 3720, B.4.
        let cases: [(&[u8], u32); 5] = [
            (b"123456789", 0xe306_9283),
            (&[0; 32], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (&descending, 0x113f_db5c),
        ];
        for (bytes, expected) in cases {
            let (first, second) = bytes.split_at(bytes.len() / 2);
            assert_eq!(crc32c([first, &[], second]), expected, "{bytes:?}");
        }
    }
}

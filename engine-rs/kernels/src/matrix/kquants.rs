//! Blocks of the K-quants, opened for packing. The layouts are ggml's; `dequantize` describes them.

use super::superblock::{Opened, SuperType};

#[derive(Clone, Copy)]
pub(super) struct Q4K;
#[derive(Clone, Copy)]
pub(super) struct Q5K;
#[derive(Clone, Copy)]
pub(super) struct Q6K;

impl SuperType for Q4K {
    const BLOCK: usize = 144;
    const UPPER: usize = 0;
    const FINE: bool = false;

    fn open(block: &[u8]) -> Opened {
        let (factors, minima) = factors_and_minima(&block[4..16]);
        let values = nibbles(&block[16..144]);
        Opened { values, factors, minima, scale: [block[0], block[1]], minimum: [block[2], block[3]] }
    }
}

impl SuperType for Q5K {
    const BLOCK: usize = 176;
    const UPPER: usize = 1;
    const FINE: bool = false;

    fn open(block: &[u8]) -> Opened {
        let (factors, minima) = factors_and_minima(&block[4..16]);
        let mut values = nibbles(&block[48..176]);
        for (at, value) in values.iter_mut().enumerate() {
            *value |= (block[16 + at % 32] >> (at / 32) & 1) << 4;
        }
        Opened { values, factors, minima, scale: [block[0], block[1]], minimum: [block[2], block[3]] }
    }
}

impl SuperType for Q6K {
    const BLOCK: usize = 210;
    const UPPER: usize = 2;
    const FINE: bool = true;

    fn open(block: &[u8]) -> Opened {
        let mut values = [0; 256];
        for (at, value) in values.iter_mut().enumerate() {
            let (half, quarter, column) = (at / 128, at / 32 % 4, at % 32);
            let nibble = block[half * 64 + quarter % 2 * 32 + column] >> (quarter / 2 * 4) & 15;
            let upper = block[128 + half * 32 + column] >> (quarter * 2) & 3;
            *value = nibble | upper << 4;
        }
        let mut factors = [0; 16];
        factors.copy_from_slice(&block[192..208]);
        Opened { values, factors, minima: [0; 8], scale: [block[208], block[209]], minimum: [0; 2] }
    }
}

/// Runs of 32 bytes: 32 low nibbles, then 32 high ones.
fn nibbles(bytes: &[u8]) -> [u8; 256] {
    let mut values = [0; 256];
    for (bytes, values) in bytes.chunks_exact(32).zip(values.as_chunks_mut::<64>().0) {
        let (low, high) = values.split_at_mut(32);
        for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
            (*low, *high) = (byte & 15, byte >> 4);
        }
    }
    values
}

fn factors_and_minima(packed: &[u8]) -> ([u8; 16], [u8; 8]) {
    let (mut factors, mut minima) = ([0; 16], [0; 8]);
    for sub in 0..4 {
        (factors[sub], minima[sub]) = (packed[sub] & 63, packed[sub + 4] & 63);
        factors[sub + 4] = packed[sub + 8] & 15 | packed[sub] >> 6 << 4;
        minima[sub + 4] = packed[sub + 8] >> 4 | packed[sub + 4] >> 6 << 4;
    }
    (factors, minima)
}

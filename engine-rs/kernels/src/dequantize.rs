//! Decodes rows of ggml blocks to f32. One function per block type, each written so that the compiler can vectorise it
//! for the instruction set it is compiled for; none fuses a multiplication with an addition, so the numbers are the same
//! on every processor. The layouts are ggml's.

use super::isa::{Lanes, f16_to_f32, per_isa};
use crate::BlockType;

/// The types whose rows `decode` can read.
pub const SUPPORTED: [BlockType; 13] = [
    BlockType::F32,
    BlockType::F16,
    BlockType::BF16,
    BlockType::Q4_0,
    BlockType::Q4_1,
    BlockType::Q5_0,
    BlockType::Q5_1,
    BlockType::Q8_0,
    BlockType::Q2_K,
    BlockType::Q3_K,
    BlockType::Q4_K,
    BlockType::Q5_K,
    BlockType::Q6_K,
];

per_isa! {
    /// Decodes `bytes`, whole blocks of the supported type `kind`, into `out`, which has one element for each value.
    pub fn decode(kind: BlockType, bytes: &[u8], out: &mut [f32]) = decode_for
}

/// Runs a block decoder over all blocks. A macro, so that the decoder is called by name and compiled with its caller.
macro_rules! blocks {
    ($decoder:expr, $bytes:expr, $out:expr) => {{
        let (blocks, _) = $bytes.as_chunks();
        let (values, _) = $out.as_chunks_mut();
        for (block, values) in blocks.iter().zip(values) {
            $decoder(block, values);
        }
    }};
}

#[inline(always)]
fn decode_for<L: Lanes>(kind: BlockType, bytes: &[u8], out: &mut [f32]) {
    match kind {
        BlockType::F32 => blocks!(f32_, bytes, out),
        BlockType::F16 => blocks!(f16_, bytes, out),
        BlockType::BF16 => blocks!(bf16_, bytes, out),
        BlockType::Q4_0 => blocks!(q4_0::<L>, bytes, out),
        BlockType::Q4_1 => blocks!(q4_1::<L>, bytes, out),
        BlockType::Q5_0 => blocks!(q5_0, bytes, out),
        BlockType::Q5_1 => blocks!(q5_1, bytes, out),
        BlockType::Q8_0 => blocks!(q8_0, bytes, out),
        BlockType::Q2_K => blocks!(q2_k, bytes, out),
        BlockType::Q3_K => blocks!(q3_k, bytes, out),
        BlockType::Q4_K => blocks!(q4_k, bytes, out),
        BlockType::Q5_K => blocks!(q5_k, bytes, out),
        BlockType::Q6_K => blocks!(q6_k, bytes, out),
        other => unreachable!("{other} is refused when a weight is opened"),
    }
}

#[inline(always)]
fn f32_(block: &[u8; 4], out: &mut [f32; 1]) {
    out[0] = f32::from_le_bytes(*block);
}

#[inline(always)]
fn f16_(block: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = f16_to_f32(u16::from_le_bytes(*block));
}

#[inline(always)]
fn bf16_(block: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = f32::from_bits((u16::from_le_bytes(*block) as u32) << 16);
}

/// The first `N` bytes: what makes the length of a loop known to the compiler.
#[inline(always)]
fn array<const N: usize>(bytes: &[u8]) -> &[u8; N] {
    match bytes.first_chunk() {
        Some(array) => array,
        None => unreachable!("a block is as long as its type says"),
    }
}

/// The half-precision float at `at`.
#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// `scale * value + offset` of the low nibbles of 16 bytes, then of the high ones. In vectors of ours, because the
/// compiler makes poor code of this loop; a nibble times a half is exact, so that fusing changes nothing.
#[inline(always)]
fn scaled_nibbles<L: Lanes>(bytes: &[u8], scale: f32, offset: f32, out: &mut [f32; 32]) {
    let bytes: &[u8; 16] = array(bytes);
    let (low, high) = (bytes.map(|byte| byte & 15), bytes.map(|byte| byte >> 4));
    for (nibbles, out) in [low, high].iter().zip(out.as_chunks_mut::<16>().0) {
        for at in (0..16).step_by(L::N) {
            // SAFETY: `per_isa!` runs this only where `L` is available; `L::N` divides 16.
            unsafe {
                let value = L::load_u8(nibbles.as_ptr().add(at));
                L::splat(offset).add_product(value, L::splat(scale)).store(out.as_mut_ptr().add(at));
            }
        }
    }
}

/// `scale` f16, then 16 bytes: the low nibbles are values 0-15, the high ones 16-31; 8 is zero.
#[inline(always)]
fn q4_0<L: Lanes>(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    scaled_nibbles::<L>(&block[2..], scale, -8.0 * scale, out);
}

/// As `q4_0`, with a minimum after the scale instead of the fixed 8.
#[inline(always)]
fn q4_1<L: Lanes>(block: &[u8; 20], out: &mut [f32; 32]) {
    scaled_nibbles::<L>(&block[4..], half_at(block, 0), half_at(block, 2), out);
}

/// The fifth bits of 32 values: bit `i` of the word belongs to value `i`.
#[inline(always)]
fn fifth_bit(word: u32, value: usize) -> u8 {
    (((word >> (value & 31)) & 1) << 4) as u8
}

#[inline(always)]
fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for (at, byte) in block[6..].iter().enumerate() {
        out[at] = ((byte & 15 | fifth_bit(fifth, at)) as f32 - 16.0) * scale;
        out[at + 16] = ((byte >> 4 | fifth_bit(fifth, at + 16)) as f32 - 16.0) * scale;
    }
}

#[inline(always)]
fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let fifth = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    for (at, byte) in block[8..].iter().enumerate() {
        out[at] = (byte & 15 | fifth_bit(fifth, at)) as f32 * scale + minimum;
        out[at + 16] = (byte >> 4 | fifth_bit(fifth, at + 16)) as f32 * scale + minimum;
    }
}

#[inline(always)]
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for (byte, out) in block[2..].iter().zip(out) {
        *out = (*byte as i8) as f32 * scale;
    }
}

/// 16 sub-blocks of 16: a byte each of scale (low nibble) and minimum (high), two bits per value, then the two
/// super-scales. Byte `l` of a half holds, two bits apart, values `l`, `l + 32`, `l + 64` and `l + 96` of that half.
#[inline(always)]
fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, quants) = block.split_at(16);
    let (scale, minimum) = (half_at(block, 80), half_at(block, 82));
    for (sub, (out, packed)) in out.as_chunks_mut::<16>().0.iter_mut().zip(scales).enumerate() {
        let (factor, offset) = (scale * (packed & 15) as f32, minimum * (packed >> 4) as f32);
        let (half, plane, side) = (sub / 8, sub / 2, sub % 2);
        let shift = plane % 4 * 2;
        let bytes: &[u8; 16] = array(&quants[half * 32 + side * 16..]);
        let values = bytes.map(|byte| ((byte >> shift) & 3) as f32);
        for (out, value) in out.iter_mut().zip(values) {
            *out = factor * value - offset;
        }
    }
}

/// As `q2_k` with a third bit in `mask` (set means no subtraction of 4) and 6-bit signed scales, whose upper two bits
/// lie four to a byte after eight bytes of nibbles.
#[inline(always)]
fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let (mask, rest) = block.split_at(32);
    let (quants, rest) = rest.split_at(64);
    let (packed, _) = rest.split_at(12);
    let scale = half_at(block, 108);
    for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let low = if sub < 8 { packed[sub] & 15 } else { packed[sub - 8] >> 4 };
        let high = (packed[8 + sub % 4] >> (sub / 4 * 2)) & 3;
        let factor = scale * ((low | high << 4) as f32 - 32.0);
        let (half, plane, side) = (sub / 8, sub / 2, sub % 2);
        let shift = plane % 4 * 2;
        let bytes: &[u8; 16] = array(&quants[half * 32 + side * 16..]);
        let mask: &[u8; 16] = array(&mask[side * 16..]);
        for ((byte, mask), out) in bytes.iter().zip(mask).zip(out) {
            let subtract = if (mask >> plane) & 1 == 0 { 4.0 } else { 0.0 };
            *out = factor * (((byte >> shift) & 3) as f32 - subtract);
        }
    }
}

/// The 6-bit scale and minimum of sub-block `sub` (0-7) out of the 12 bytes in which K-quants pack them.
#[inline(always)]
fn scale_and_minimum(packed: &[u8], sub: usize) -> (f32, f32) {
    let (scale, minimum) = if sub < 4 {
        (packed[sub] & 63, packed[sub + 4] & 63)
    } else {
        (packed[sub + 4] & 15 | packed[sub - 4] >> 6 << 4, packed[sub + 4] >> 4 | packed[sub] >> 6 << 4)
    };
    (scale as f32, minimum as f32)
}

/// Eight sub-blocks of 32, two to each run of 32 bytes: low nibbles, then high nibbles.
#[inline(always)]
fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let packed = &block[4..16];
    let runs = block[16..].as_chunks::<32>().0;
    for (run, (bytes, out)) in runs.iter().zip(out.as_chunks_mut::<64>().0).enumerate() {
        let (low, high) = out.split_at_mut(32);
        let (low_scale, low_minimum) = scale_and_minimum(packed, run * 2);
        let (high_scale, high_minimum) = scale_and_minimum(packed, run * 2 + 1);
        let (low_factor, low_offset) = (scale * low_scale, minimum * low_minimum);
        let (high_factor, high_offset) = (scale * high_scale, minimum * high_minimum);
        for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
            *low = low_factor * (byte & 15) as f32 - low_offset;
            *high = high_factor * (byte >> 4) as f32 - high_offset;
        }
    }
}

/// As `q4_k`, with the fifth bit of sub-block `s` in bit `s` of 32 bytes.
#[inline(always)]
fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let (packed, fifths) = (&block[4..16], &block[16..48]);
    let runs = block[48..].as_chunks::<32>().0;
    for (run, (bytes, out)) in runs.iter().zip(out.as_chunks_mut::<64>().0).enumerate() {
        for (side, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let sub = run * 2 + side;
            let (sub_scale, sub_minimum) = scale_and_minimum(packed, sub);
            let (factor, offset) = (scale * sub_scale, minimum * sub_minimum);
            for ((byte, fifth), out) in bytes.iter().zip(fifths).zip(out) {
                let value = (byte >> (side * 4)) & 15 | ((fifth >> sub) & 1) << 4;
                *out = factor * value as f32 - offset;
            }
        }
    }
}

/// Two halves of 128: nibbles in 64 bytes, upper two bits in 32, and one signed scale for each 16 values.
#[inline(always)]
fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let scale = half_at(block, 208);
    for (half, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let nibbles = &block[half * 64..][..64];
        let uppers = &block[128 + half * 32..][..32];
        let scales = &block[192 + half * 8..][..8];
        for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let factor = scale * (scales[sub] as i8) as f32;
            let (quarter, side) = (sub / 2, sub % 2);
            let bytes = nibbles[quarter % 2 * 32 + side * 16..].iter().zip(&uppers[side * 16..]);
            for ((byte, upper), out) in bytes.zip(out) {
                let value = (byte >> (quarter / 2 * 4)) & 15 | ((upper >> (quarter * 2)) & 3) << 4;
                *out = factor * (value as f32 - 32.0);
            }
        }
    }
}

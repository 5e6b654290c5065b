//! Valid blocks of random values, for tests of whatever reads blocks.

use super::Noise;
use crate::BlockType;

/// Where a block type keeps its half-precision scale and the largest quant it multiplies; where it keeps the minimum (or
/// the scale of its minima), and the factor from scale to minimum that centres values on zero.
struct Layout {
    scale: usize,
    largest: f32,
    minimum: Option<(usize, f32)>,
}

/// Valid blocks of random values within roughly -`scale`..`scale`: random bits under half-precision scales that fit it.
pub fn random_blocks(noise: &mut Noise, kind: BlockType, elements: usize, scale: f32) -> Vec<u8> {
    let layout = |scale, largest, minimum| Layout { scale, largest, minimum };
    let layout = match kind {
        BlockType::F32 => {
            return noise.floats(elements).iter().flat_map(|v| (v * scale).to_le_bytes()).collect();
        }
        BlockType::F16 => {
            return halves(noise, elements, |value| half::f16::from_f32(value * scale).to_bits());
        }
        BlockType::BF16 => {
            return halves(noise, elements, |value| half::bf16::from_f32(value * scale).to_bits());
        }
        BlockType::Q4_0 => layout(0, 8.0, None),
        BlockType::Q4_1 => layout(0, 7.5, Some((2, -7.5))),
        BlockType::Q5_0 => layout(0, 16.0, None),
        BlockType::Q5_1 => layout(0, 15.5, Some((2, -15.5))),
        BlockType::Q8_0 => layout(0, 127.0, None),
        BlockType::Q2_K => layout(80, 15.0 * 1.5, Some((82, 1.5))),
        BlockType::Q3_K => layout(108, 32.0 * 4.0, None),
        BlockType::Q4_K => layout(0, 63.0 * 7.5, Some((2, 7.5))),
        BlockType::Q5_K => layout(0, 63.0 * 15.5, Some((2, 15.5))),
        BlockType::Q6_K => layout(208, 128.0 * 32.0, None),
        other => unreachable!("no random blocks of {other}"),
    };
    let mut bytes = noise.bytes(elements / kind.elements * kind.bytes);
    for block in bytes.chunks_exact_mut(kind.bytes) {
        let value = scale / layout.largest * (0.75 + 0.25 * noise.float());
        block[layout.scale..][..2].copy_from_slice(&half::f16::from_f32(value).to_le_bytes());
        if let Some((at, factor)) = layout.minimum {
            block[at..][..2].copy_from_slice(&half::f16::from_f32(value * factor).to_le_bytes());
        }
    }
    bytes
}

fn halves(noise: &mut Noise, elements: usize, narrow: impl Fn(f32) -> u16) -> Vec<u8> {
    noise.floats(elements).into_iter().flat_map(|value| narrow(value).to_le_bytes()).collect()
}

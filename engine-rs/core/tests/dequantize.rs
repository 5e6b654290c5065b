//! Our block decoders against candle's, bit for bit where both do the same arithmetic.
#![allow(clippy::unwrap_used, reason = "a test helper may panic as a test may")]

use std::borrow::Cow;

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use quiver_core::gguf::BlockType;
use quiver_core::kernels::{Isa, SUPPORTED, decode};
use quiver_core::testing::{Noise, random_blocks};

const ROWS: usize = 3;
const COLUMNS: usize = 512;
/// Candle may order the two roundings of a scale of scales differently.
const TOLERANCE: f32 = 1e-6;

fn candle_type(kind: BlockType) -> GgmlDType {
    match kind.name {
        "F32" => GgmlDType::F32,
        "F16" => GgmlDType::F16,
        "BF16" => GgmlDType::BF16,
        "Q4_0" => GgmlDType::Q4_0,
        "Q4_1" => GgmlDType::Q4_1,
        "Q5_0" => GgmlDType::Q5_0,
        "Q5_1" => GgmlDType::Q5_1,
        "Q8_0" => GgmlDType::Q8_0,
        "Q2_K" => GgmlDType::Q2K,
        "Q3_K" => GgmlDType::Q3K,
        "Q4_K" => GgmlDType::Q4K,
        "Q5_K" => GgmlDType::Q5K,
        "Q6_K" => GgmlDType::Q6K,
        other => panic!("{other}"),
    }
}

fn candle_values(kind: BlockType, bytes: &[u8]) -> Vec<f32> {
    let storage = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, candle_type(kind)).unwrap();
    let tensor = QTensor::new(storage, (ROWS, COLUMNS)).unwrap();
    tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn decoders_agree_with_candle() {
    let mut noise = Noise::new(3);
    for kind in SUPPORTED {
        let bytes = random_blocks(&mut noise, kind, ROWS * COLUMNS, 1.0);
        let expected = candle_values(kind, &bytes);
        for isa in Isa::available() {
            let mut got = vec![0.0; expected.len()];
            decode(isa, kind, &bytes, &mut got);
            for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
                assert!((got - expected).abs() <= TOLERANCE, "{kind} {isa:?} value {at}: {got}, candle {expected}");
            }
        }
    }
}

#[test]
fn every_processor_decodes_the_same_bits() {
    let mut noise = Noise::new(4);
    for kind in SUPPORTED {
        let bytes = random_blocks(&mut noise, kind, COLUMNS, 1.0);
        let decoded = Isa::available().into_iter().map(|isa| {
            let mut out = vec![0.0; COLUMNS];
            decode(isa, kind, &bytes, &mut out);
            out.iter().map(|value| value.to_bits()).collect::<Vec<u32>>()
        });
        let decoded: Vec<Vec<u32>> = decoded.collect();
        assert!(decoded.windows(2).all(|pair| pair[0] == pair[1]), "{kind}");
    }
}

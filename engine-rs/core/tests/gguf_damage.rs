//! Whatever a file holds, opening it ends in a model or in an error that names the file; never in a panic, and never in
//! an allocation that the file only claims to need.
#![allow(clippy::unwrap_used, reason = "a test helper may panic as a test may")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quiver_core::error::{Error, Result};
use quiver_core::executor::{Chunk, Want};
use quiver_core::gguf::{BlockType, Gguf, Kind, Value};
use quiver_core::kv::{KvCache, KvLayout, KvType};
use quiver_core::model::{Batch, Decoder, DecoderSpec};
use quiver_core::testing::{Noise, Tiny, Writer};
use tempfile::TempDir;

struct Shelf(TempDir);

impl Shelf {
    fn new() -> Shelf {
        Shelf(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("model.gguf")
    }

    fn open(&self, bytes: &[u8]) -> Result<Gguf> {
        // A new file each time: some file systems write one that is emptied and filled again to disk at once.
        let _ = std::fs::remove_file(self.path());
        std::fs::write(self.path(), bytes).unwrap();
        Gguf::open(&self.path())
    }

    fn refused(&self, bytes: &[u8]) -> String {
        let error = self.open(bytes).unwrap_err();
        let message = error.to_string();
        let named = message.contains("model.gguf") || matches!(error, Error::UnsupportedTensorType { .. });
        assert!(named, "{message}");
        format!("{}: {message}", error.code())
    }
}

/// A model small enough to be opened thousands of times, with an array of each kind in its metadata.
fn small() -> Vec<u8> {
    let tiny = Tiny {
        layers: 1,
        width: 4,
        heads: 2,
        kv_heads: 1,
        head_width: 2,
        feed_forward: 4,
        vocab: 3,
        context: 8,
        ..Tiny::default()
    };
    let mut writer = tiny.writer();
    writer.strings("tokenizer.ggml.tokens", &["a", "", "\u{fffd}"]).i32s("types", &[1, -2, 3]).f32s("scores", &[0.5]);
    writer.bool("flag", true);
    writer.finish()
}

/// Does all that a server does with a model: an answer or an error, in a bounded time.
fn use_model(file: Gguf) -> Result<()> {
    let values: Vec<String> = file.values().map(|(key, _)| key.to_owned()).collect();
    for key in values {
        let _ = (file.strings(&key), file.i32s(&key), file.f32s(&key), file.u32(&key), file.str(&key));
    }
    // Without an executor, whose threads would take longer to start than all else.
    let decoder = Decoder::open(&Arc::new(file))?;
    let chunk = Chunk { start: 0, tokens: &[0, 1], want: Want::Last, blocks: &[0] };
    let batch = Batch::new(&[chunk], decoder.spec.context_length, decoder.vocab)?;
    let DecoderSpec { layers, kv_heads, key_width, value_width, .. } = decoder.spec;
    let Some(layout) = KvLayout::new(KvType::F16, layers, kv_heads, key_width, value_width) else {
        return Ok(());
    };
    let mut kv = KvCache::new(layout);
    kv.reserve(&[0])?;
    decoder.forward(&batch, &mut kv).map(drop)
}

/// Runs on one thread: waking others takes longer than all these small models do.
fn on_one_thread(work: impl FnOnce() + Send) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(work);
}

#[test]
fn whole_files_open() {
    let shelf = Shelf::new();
    let file = shelf.open(&small()).unwrap();
    assert_eq!((file.version(), file.architecture().unwrap()), (3, "llama"));
    assert_eq!(file.strings("tokenizer.ggml.tokens").unwrap(), [b"a".as_slice(), b"", "\u{fffd}".as_bytes()]);
    assert_eq!(file.i32s("types").unwrap(), [1, -2, 3]);
    assert_eq!(file.f32s("scores").unwrap(), [0.5]);
    assert!(file.bool("flag").unwrap());
    assert_eq!(file.tensor("token_embd.weight").unwrap().info.dims, [3, 4]);
    assert_eq!(file.tensors().count(), 12);
    use_model(file).unwrap();
}

#[test]
fn version_2_opens_too() {
    let tiny = Tiny::default();
    let file = Shelf::new().open(&tiny.writer().finish_as(2, 21, 11)).unwrap();
    assert_eq!(file.version(), 2);
    use_model(file).unwrap();
}

#[test]
fn every_truncation_is_an_error() {
    let (shelf, whole) = (Shelf::new(), small());
    for length in 0..whole.len() {
        let message = shelf.refused(&whole[..length]);
        assert!(message.starts_with("gguf_truncated") || message.starts_with("not_gguf"), "{length}: {message}");
    }
}

#[test]
fn no_single_damaged_byte_panics() {
    on_one_thread(|| {
        let (shelf, whole) = (Shelf::new(), small());
        let mut noise = Noise::new(1);
        let mut opened = 0;
        for at in 0..whole.len() {
            for value in [0, 0xff, whole[at] ^ 1, noise.bits() as u8] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                opened += usize::from(shelf.open(&damaged).and_then(use_model).is_ok());
            }
        }
        // Damage to a weight, or none at all, is not noticed; the rest is.
        assert!(opened > 0);
    });
}

#[test]
fn no_scrambled_file_panics() {
    on_one_thread(|| {
        let (shelf, whole) = (Shelf::new(), small());
        let mut noise = Noise::new(2);
        for _ in 0..2000 {
            let mut damaged = whole.clone();
            for _ in 0..=noise.below(8) {
                let (at, length) = (noise.below(whole.len() as u32) as usize, 1 + noise.below(8) as usize);
                let end = whole.len().min(at + length);
                damaged[at..end].copy_from_slice(&noise.bytes(end - at));
            }
            let _ = shelf.open(&damaged).and_then(use_model);
        }
    });
}

#[test]
fn not_files_are_named() {
    let shelf = Shelf::new();
    let folder = shelf.0.path();
    let cases = [
        (folder.join("absent.gguf"), "model_unreadable", "absent.gguf: cannot open the model file"),
        (folder.to_owned(), "not_gguf", "not a regular file"),
        (PathBuf::from("/dev/null"), "not_gguf", "not a regular file"),
    ];
    for (path, code, expected) in cases {
        let error = Gguf::open(&path).unwrap_err();
        assert_eq!(error.code(), code);
        assert!(error.to_string().contains(expected), "{error}");
    }
}

fn header(version: u32, tensors: u64, values: u64) -> Vec<u8> {
    Writer::default().finish_as(version, tensors, values)
}

fn with_value(kind: u32, bytes: &[u8]) -> Vec<u8> {
    Writer::new("llama").raw("key", kind, bytes).finish()
}

fn with_entry(name: &str, kind: u32, dims: &[usize], offset: u64) -> Vec<u8> {
    Writer::new("llama").tensor_entry(name, kind, dims, offset).finish()
}

fn nested_arrays(depth: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..depth {
        bytes.extend(9u32.to_le_bytes());
        bytes.extend(1u64.to_le_bytes());
    }
    bytes.extend(4u32.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes
}

fn array_of(kind: u32, count: u64) -> Vec<u8> {
    [kind.to_le_bytes().as_slice(), &count.to_le_bytes()].concat()
}

#[test]
fn claims_are_checked() {
    let shelf = Shelf::new();
    let huge = u64::MAX;
    let twice = Writer::new("llama").u32("a", 1).u32("a", 2).finish();
    let tensor_twice =
        Writer::new("llama").tensor("t", BlockType::F32, &[1], &[0; 4]).tensor_entry("t", 0, &[1], 0).finish();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "not_gguf: "),
        (b"GGML and more".to_vec(), "it starts with \"GGML\""),
        (header(1, 0, 0), "gguf_version: "),
        (header(4, 0, 0), "version 4 is not supported"),
        (header(3u32.swap_bytes(), 0, 0), "a big-endian file"),
        (header(3, huge, 0), "gguf_truncated: "),
        (header(3, 0, huge), "gguf_truncated: "),
        (with_value(13, &[]), "unknown value type 13"),
        (with_value(8, &huge.to_le_bytes()), "claims 18446744073709551615 bytes"),
        (with_value(8, &(1u64 << 30).to_le_bytes()), "metadata value `key`"),
        (with_value(9, &array_of(4, huge)), "needs 18446744073709551615 bytes"),
        (with_value(9, &array_of(0, 1 << 40)), "needs 1099511627776 bytes"),
        (with_value(9, &array_of(8, 1 << 40)), "gguf_truncated: "),
        (with_value(9, &array_of(9, 1 << 40)), "gguf_"),
        (with_value(9, &nested_arrays(100_000)), "nests arrays deeper than 8"),
        (twice, "metadata key `a` appears twice"),
        (tensor_twice, "tensor `t` appears twice"),
        (Writer::new("llama").u32("general.alignment", 0).finish(), "should be a power of two, is 0"),
        (Writer::new("llama").u32("general.alignment", 24).finish(), "should be a power of two, is 24"),
        (Writer::new("llama").str("general.alignment", "x").finish(), "should be a power of two, is string"),
        (with_entry("t", 0, &[], 0), "has 0 dimensions"),
        (with_entry("t", 0, &[1; 5], 0), "has 5 dimensions"),
        (with_entry("t", 0, &[0], 0), "has a dimension of 0"),
        (with_entry("t", 0, &[usize::MAX, 2], 0), "is no size for F32"),
        (with_entry("t", 0, &[usize::MAX], 0), "is no size for F32"),
        (with_entry("t", 8, &[33], 0), "is no size for Q8_0"),
        (with_entry("t", 0, &[1], 1), "offset 1 is misaligned or out of range"),
        (with_entry("t", 0, &[8], huge - 31), "misaligned or out of range"),
        (with_entry("t", 0, &[8], 1 << 40), "tensor `t` at offset"),
        (with_entry("t", 0, &[8], 0), "gguf_truncated: "),
        (with_entry("t", 4, &[32], 0), "type Q4_2 (retired by ggml)"),
        (with_entry("t", 77, &[32], 0), "type number 77 (unknown)"),
        (with_entry("t", 12, &[256], 0), "needs 144 bytes, 0 left"),
    ];
    for (bytes, expected) in cases {
        let message = shelf.refused(&bytes);
        assert!(message.contains(expected), "wanted {expected}, got {message}");
    }
}

#[test]
fn values_are_read_by_kind() {
    let mut writer = Writer::new("llama");
    writer.u32("small", 7).raw("wide", 10, &(1u64 << 40).to_le_bytes()).raw("negative", 5, &(-3i32).to_le_bytes());
    writer.f32("float", 0.5).raw("double", 12, &0.25f64.to_le_bytes()).raw(
        "broken",
        8,
        &[2, 0, 0, 0, 0, 0, 0, 0, 0xff, 65],
    );
    let file = Shelf::new().open(&writer.finish()).unwrap();
    assert_eq!((file.u32("small").unwrap(), file.u64("wide").unwrap()), (7, 1 << 40));
    assert_eq!((file.f32("float").unwrap(), file.f32("double").unwrap()), (0.5, 0.25));
    assert_eq!((file.opt_u32("none").unwrap(), file.get("negative")), (None, Some(&Value::I32(-3))));
    assert_eq!(file.str("broken").unwrap(), "\u{fffd}A");
    let complaints = [
        (file.u32("wide").unwrap_err(), "`wide` should be a 32-bit unsigned integer, is u64 1099511627776"),
        (file.u32("negative").unwrap_err(), "is i32 -3"),
        (file.f32("small").unwrap_err(), "`small` should be a float, is u32 7"),
        (file.bool("small").unwrap_err(), "should be a bool"),
        (file.str("small").unwrap_err(), "should be a string"),
        (file.strings("small").unwrap_err(), "should be an array of strings"),
        (file.u32("none").unwrap_err(), "metadata key `none` is missing"),
        (file.tensor("none").unwrap_err(), "tensor `none` is missing"),
    ];
    for (error, expected) in complaints {
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn arrays_keep_their_kind() {
    let file = Shelf::new().open(&with_value(9, &nested_arrays(3))).unwrap();
    let Some(Value::Array(array)) = file.get("key") else { panic!("an array") };
    assert_eq!((array.kind, array.len), (Kind::Array, 1));
    assert!(file.i32s("key").unwrap_err().to_string().contains("is array of 1 array"));
}

#[test]
fn pipes_do_not_block() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    if std::process::Command::new("mkfifo").arg(&path).status().is_ok_and(|status| status.success()) {
        assert_eq!(Gguf::open(Path::new(&path)).unwrap_err().code(), "not_gguf");
    }
}

use std::sync::Arc;

use tempfile::NamedTempFile;

use super::{Embedder, Encoder, Input, Pooling};
use crate::error::{Error, Result};
use crate::gguf::{BlockType, Gguf};
use crate::testing::{Noise, Writer, random_blocks};

const WIDTH: usize = 256;
const INNER: usize = 512;
const VOCAB: usize = 60;
const CONTEXT: usize = 40;

/// A random encoder of one layer with a vocabulary of letters.
struct Tiny {
    architecture: &'static str,
    kind: BlockType,
    fused: bool,
    pooling: Option<u32>,
}

const BERT: Tiny = Tiny { architecture: "bert", kind: BlockType::F32, fused: false, pooling: None };
const NOMIC: Tiny = Tiny { architecture: "nomic-bert", fused: true, ..BERT };

impl Tiny {
    fn writer(&self) -> Writer {
        let mut writer = Writer::new(self.architecture);
        let sizes = [
            ("context_length", CONTEXT),
            ("embedding_length", WIDTH),
            ("block_count", 1),
            ("feed_forward_length", INNER),
            ("attention.head_count", 4),
        ];
        for (key, size) in sizes {
            writer.u32(&format!("{}.{key}", self.architecture), size as u32);
        }
        if let Some(pooling) = self.pooling {
            writer.u32(&format!("{}.pooling_type", self.architecture), pooling);
        }
        writer.f32(&format!("{}.attention.layer_norm_epsilon", self.architecture), 1e-6);
        writer.str("tokenizer.ggml.model", "bert");
        let letters = ('a'..='z').flat_map(|letter| [letter.to_string(), format!("▁{letter}")]);
        let mut tokens: Vec<String> =
            ["[UNK]", "[CLS]", "[SEP]"].map(str::to_owned).into_iter().chain(letters).collect();
        tokens.resize_with(VOCAB, || "▁!".to_owned());
        for (number, token) in tokens.iter_mut().enumerate().skip(56) {
            *token = format!("[unused{number}]");
        }
        writer.strings("tokenizer.ggml.tokens", &tokens);
        writer.u32("tokenizer.ggml.unknown_token_id", 0).u32("tokenizer.ggml.bos_token_id", 1);
        writer.u32("tokenizer.ggml.seperator_token_id", 2);
        self.tensors(&mut writer);
        writer
    }

    fn tensors(&self, writer: &mut Writer) {
        let mut noise = Noise::new(3);
        let inputs: &[(&str, usize, usize)] = match self.fused {
            true => &[("blk.0.attn_qkv", 3 * WIDTH, WIDTH)],
            false => &[("blk.0.attn_q", WIDTH, WIDTH), ("blk.0.attn_k", WIDTH, WIDTH), ("blk.0.attn_v", WIDTH, WIDTH)],
        };
        let own: &[(&str, usize, usize)] = match self.architecture {
            "bert" => &[("position_embd", CONTEXT, WIDTH)],
            _ => &[("blk.0.ffn_gate", INNER, WIDTH)],
        };
        let shared = [
            ("token_embd", VOCAB, WIDTH),
            ("blk.0.attn_output", WIDTH, WIDTH),
            ("blk.0.ffn_up", INNER, WIDTH),
            ("blk.0.ffn_down", WIDTH, INNER),
        ];
        for (name, rows, columns) in shared.iter().chain(inputs).chain(own) {
            let bytes = random_blocks(&mut noise, self.kind, rows * columns, 0.15);
            writer.tensor(&format!("{name}.weight"), self.kind, &[*rows, *columns], &bytes);
        }
        for name in ["token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"] {
            for (end, centre) in [("weight", 1.0), ("bias", 0.0)] {
                let values: Vec<u8> = (0..WIDTH).flat_map(|_| (centre + noise.float() / 8.0).to_le_bytes()).collect();
                writer.tensor(&format!("{name}.{end}"), BlockType::F32, &[WIDTH], &values);
            }
        }
    }

    fn file(&self) -> NamedTempFile {
        saved(&self.writer())
    }
}

fn saved(writer: &Writer) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), writer.finish()).unwrap();
    file
}

fn open(file: &NamedTempFile) -> Result<Encoder> {
    Encoder::open(&Arc::new(Gguf::open(file.path())?))
}

fn texts() -> Vec<Vec<u32>> {
    let mut noise = Noise::new(5);
    [1, 2, 17, CONTEXT, 3, 9].iter().map(|length| (0..*length).map(|_| noise.below(VOCAB as u32)).collect()).collect()
}

fn embed(encoder: &Encoder, texts: &[Vec<u32>]) -> Vec<Vec<f32>> {
    encoder.embed(&texts.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
}

fn cosine(left: &[f32], right: &[f32]) -> f64 {
    left.iter().zip(right).map(|(left, right)| f64::from(*left) * f64::from(*right)).sum()
}

#[test]
fn a_text_ignores_its_batch() {
    let kinds = [BlockType::F32, BlockType::F16, BlockType::Q8_0, BlockType::Q4_K, BlockType::Q6_K];
    for tiny in kinds.into_iter().flat_map(|kind| [Tiny { kind, ..BERT }, Tiny { kind, ..NOMIC }]) {
        let file = tiny.file();
        let encoder = open(&file).unwrap();
        let together = embed(&encoder, &texts());
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for (text, expected) in texts().into_iter().zip(&together) {
                let alone = pool.install(|| embed(&encoder, &[text]));
                assert_eq!(&alone[0], expected, "{} {}", tiny.architecture, tiny.kind);
            }
        }
        for vector in &together {
            assert!((cosine(vector, vector) - 1.0).abs() < 1e-6);
        }
    }
}

#[test]
fn pooling_chooses_the_row() {
    let text = [vec![1, 7, 9, 2]];
    let pooled = |pooling| {
        let file = Tiny { pooling, ..BERT }.file();
        let encoder = open(&file).unwrap();
        (encoder.spec.pooling, embed(&encoder, &text).remove(0))
    };
    let [(default, usual), (_, mean), (first, cls), (last, end)] = [None, Some(1), Some(2), Some(3)].map(pooled);
    assert_eq!((default, first, last), (Pooling::Mean, Pooling::First, Pooling::Last));
    assert_eq!(usual, mean);
    assert!(cosine(&mean, &cls) < 0.999 && cosine(&cls, &end) < 0.999 && cosine(&mean, &end) < 0.999);
}

#[test]
fn order_of_tokens_matters() {
    for tiny in [BERT, NOMIC] {
        let file = tiny.file();
        let vectors = embed(&open(&file).unwrap(), &[vec![1, 7, 9, 2], vec![1, 9, 7, 2]]);
        assert!(cosine(&vectors[0], &vectors[1]) < 0.9999, "{}", tiny.architecture);
    }
}

#[test]
fn what_cannot_be_computed_is_refused() {
    let cases: [(Writer, &str); 4] = [
        (Tiny { pooling: Some(4), ..BERT }.writer(), "`bert.pooling_type` is 4: a model that ranks"),
        (Tiny { pooling: Some(0), ..BERT }.writer(), "`bert.pooling_type` is 0"),
        (
            Tiny { architecture: "llama", ..BERT }.writer(),
            "architecture `llama` is not supported (supported: bert, nomic-bert)",
        ),
        (
            {
                let mut writer = BERT.writer();
                writer.tensor("cls.weight", BlockType::F32, &[1], &[0; 4]);
                writer
            },
            "tensor `cls.weight` has no place",
        ),
    ];
    for (writer, expected) in &cases {
        let error = open(&saved(writer)).err().unwrap();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let file = BERT.file();
    let encoder = open(&file).unwrap();
    for (text, code) in [
        (vec![], "invalid_request"),
        (vec![1, VOCAB as u32], "invalid_request"),
        (vec![1; CONTEXT + 1], "context_length_exceeded"),
    ] {
        assert_eq!(encoder.embed(&[&text]).err().unwrap().code(), code);
    }
}

fn words(count: usize) -> Vec<Input> {
    (0..count).map(|number| Input::Text(format!("word {}", char::from(b'a' + (number % 26) as u8)))).collect()
}

#[test]
fn waiting_requests_are_answered_together() {
    let file = BERT.file();
    let embedder = Embedder::open(file.path(), 1).unwrap();
    let alone: Vec<_> =
        (1..5).map(|count| embedder.request(words(count * 40), None).unwrap().wait().unwrap()).collect();
    let tickets: Vec<_> = (1..5).map(|count| embedder.request(words(count * 40), None).unwrap()).collect();
    let together: Vec<_> = std::thread::scope(|scope| {
        let waiting: Vec<_> = tickets.iter().map(|ticket| scope.spawn(|| ticket.wait().unwrap())).collect();
        waiting.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
    assert_eq!((alone[0].tokens.len(), alone[0].width, alone[0].values.len()), (40, WIDTH, 40 * WIDTH));
    assert!(alone[0].tokens.iter().all(|count| *count == 7), "[CLS], four letters, another, [SEP]");
}

#[test]
fn fewer_dimensions_keep_length_one() {
    let file = BERT.file();
    let embedder = Embedder::open(file.path(), 1).unwrap();
    let whole = embedder.request(words(1), None).unwrap().wait().unwrap().values;
    let kept = embedder.request(words(1), Some(8)).unwrap().wait().unwrap().values;
    assert_eq!(kept.len(), 8);
    assert!((cosine(&kept, &kept) - 1.0).abs() < 1e-6);
    assert!((kept[0] / kept[1] - whole[0] / whole[1]).abs() < 1e-3);
    for dimensions in [0, WIDTH + 1] {
        let refused = embedder.request(words(1), Some(dimensions)).err().unwrap();
        assert!(refused.to_string().contains("`dimensions`") && refused.to_string().contains("1..=256"), "{refused}");
    }
}

#[test]
fn inputs_at_fault_are_named() {
    let file = BERT.file();
    let embedder = Embedder::open(file.path(), 1).unwrap();
    let wait = |inputs: Vec<Input>| embedder.request(inputs, None).unwrap().wait().err().unwrap();
    let unknown = wait(vec![Input::Tokens(vec![1]), Input::Tokens(vec![99])]);
    assert!(matches!(&unknown, Error::InvalidRequest { field, .. } if field == "input[1]"), "{unknown}");
    let long = wait(vec![Input::Text("a ".repeat(CONTEXT))]);
    assert!(matches!(long, Error::ContextOverflow { prompt: 42, limit: CONTEXT, .. }), "{long}");
}

#[test]
fn cancelled_and_closed_requests_end() {
    let file = BERT.file();
    let embedder = Embedder::open(file.path(), 1).unwrap();
    let cancelled = embedder.request(words(20_000), None).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| cancelled.wait());
        std::thread::yield_now();
        cancelled.cancel();
        assert!(matches!(waiting.join().unwrap(), Err(Error::Stopped)));
    });
    let late = embedder.request(words(1), None).unwrap();
    embedder.close();
    embedder.close();
    assert!(matches!(late.wait(), Err(Error::Stopped)));
}

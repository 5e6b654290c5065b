//! A sequence's logits are the same bits however its tokens were batched, chunked or computed again.
#![allow(clippy::unwrap_used, reason = "a test helper may panic as a test may")]

use std::sync::Arc;

use quiver_core::error::Error;
use quiver_core::executor::{BLOCK, BlockId, Chunk, Executor, ExecutorOptions, KvType, Want, load};
use quiver_core::gguf::Gguf;
use quiver_core::testing::{Noise, Tiny};

fn open(tiny: &Tiny, threads: usize, kv: KvType) -> Box<dyn Executor> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, tiny.bytes()).unwrap();
    let options = ExecutorOptions { threads, kv, ..ExecutorOptions::default() };
    load(Arc::new(Gguf::open(&path).unwrap()), &options).unwrap()
}

/// Every block type that is packed, and every feature of a decoder.
fn shapes() -> Vec<Tiny> {
    Tiny::variety().into_iter().chain(Tiny::features()).collect()
}

fn tokens(seed: u64, count: usize, vocab: usize) -> Vec<u32> {
    let mut noise = Noise::new(seed);
    (0..count).map(|_| noise.below(vocab as u32)).collect()
}

/// Blocks for 256 positions of a sequence, in no order, and of no other sequence.
fn table(seq: u32) -> Vec<BlockId> {
    (0..256 / BLOCK as u32).map(|at| seq * 8 + (at * 5 + 3) % 8).collect()
}

/// Feeds `tokens` in chunks of the given lengths and returns the bits of all logits.
fn run(model: &mut dyn Executor, seq: u32, mut start: usize, tokens: &[u32], lengths: &[usize]) -> Vec<u32> {
    let mut rows = Vec::new();
    let (mut rest, blocks) = (tokens, table(seq));
    for length in lengths.iter().cycle() {
        let (chunk, after) = rest.split_at(rest.len().min(*length));
        if chunk.is_empty() {
            break;
        }
        let logits = model.step(&[Chunk { start, tokens: chunk, want: Want::All, blocks: &blocks }]).unwrap();
        rows.extend(logits.rows.iter().map(|value| value.to_bits()));
        start += chunk.len();
        rest = after;
    }
    rows
}

#[test]
fn chunks_do_not_change_logits() {
    for tiny in shapes() {
        for kv in [KvType::F16, KvType::F32] {
            let mut model = open(&tiny, 2, kv);
            let tokens = tokens(1, 75, tiny.vocab);
            let whole = run(model.as_mut(), 1, 0, &tokens, &[75]);
            assert!(whole.iter().all(|bits| f32::from_bits(*bits).is_finite()), "{tiny:?}");
            for (seq, lengths) in [(2, &[1][..]), (3, &[7, 2, 40]), (4, &[32, 5])] {
                assert!(run(model.as_mut(), seq, 0, &tokens, lengths) == whole, "{lengths:?} {tiny:?}");
            }
        }
    }
}

#[test]
fn companions_do_not_change_logits() {
    for tiny in shapes() {
        let mut model = open(&tiny, 2, KvType::F16);
        let prompts: Vec<Vec<u32>> = (0..5).map(|seq| tokens(seq, 3 + 11 * seq as usize, tiny.vocab)).collect();
        let alone: Vec<Vec<u32>> =
            prompts.iter().enumerate().map(|(at, prompt)| run(model.as_mut(), at as u32, 0, prompt, &[200])).collect();
        // All but the last token first, so that the batch below mixes decoding rows with whole prompts.
        for (seq, prompt) in prompts.iter().enumerate().skip(3) {
            run(model.as_mut(), 100 + seq as u32, 0, &prompt[..prompt.len() - 1], &[200]);
        }
        let tables: Vec<Vec<BlockId>> = (100..105).map(table).collect();
        let chunks: Vec<Chunk<'_>> = (prompts.iter().zip(&tables).enumerate())
            .map(|(seq, (prompt, blocks))| {
                let start = if seq >= 3 { prompt.len() - 1 } else { 0 };
                Chunk { start, tokens: &prompt[start..], want: Want::Last, blocks }
            })
            .collect();
        let together = model.step(&chunks).unwrap();
        for (row, alone) in together.rows.chunks(tiny.vocab).zip(&alone) {
            let row: Vec<u32> = row.iter().map(|value| value.to_bits()).collect();
            assert!(alone.ends_with(&row), "{tiny:?}");
        }
    }
}

/// With one key-value head there is one task a step, which is cut along the context where there are threads for it.
#[test]
fn cuts_along_the_context_do_not_change_logits() {
    let tiny = Tiny { kv_heads: 1, context: 1100, ..Tiny::default() };
    let tokens = tokens(5, 1000, tiny.vocab);
    let blocks = (0..1024 / 32).collect::<Vec<BlockId>>();
    let [one, four] = [1, 4].map(|threads| {
        let mut model = open(&tiny, threads, KvType::F16);
        model.step(&[Chunk { start: 0, tokens: &tokens[..990], want: Want::Nothing, blocks: &blocks }]).unwrap();
        let steps = (990..1000).map(|start| {
            let tokens = &tokens[start..=start];
            model.step(&[Chunk { start, tokens, want: Want::Last, blocks: &blocks }]).unwrap().rows
        });
        steps.flatten().map(f32::to_bits).collect::<Vec<u32>>()
    });
    assert!(one == four);
}

#[test]
fn threads_do_not_change_logits() {
    for tiny in shapes() {
        let tokens = tokens(2, 40, tiny.vocab);
        let [one, three] = [1, 3].map(|threads| run(open(&tiny, threads, KvType::F16).as_mut(), 1, 0, &tokens, &[40]));
        assert!(one == three, "{tiny:?}");
    }
}

#[test]
fn positions_can_be_written_again() {
    let tiny = Tiny::default();
    let mut model = open(&tiny, 2, KvType::F16);
    let prompt = tokens(3, 60, tiny.vocab);
    let whole = run(model.as_mut(), 1, 0, &prompt, &[60]);
    let other = tokens(4, 30, tiny.vocab);
    run(model.as_mut(), 1, 60, &other, &[30]);
    for keep in [60, 33, 32, 1, 0] {
        let again = run(model.as_mut(), 1, keep, &prompt[keep..], &[9]);
        assert!(whole.ends_with(&again), "{keep}");
    }
}

#[test]
fn a_shared_beginning_changes_nothing() {
    let tiny = Tiny::default();
    let mut model = open(&tiny, 2, KvType::F16);
    let prompts = [tokens(3, 80, tiny.vocab), tokens(3, 64, tiny.vocab).into_iter().chain([5, 6, 7]).collect()];
    let alone = prompts.clone().map(|prompt| run(model.as_mut(), 7, 0, &prompt, &[80]));
    run(model.as_mut(), 1, 0, &prompts[0][..64], &[64]);
    let [first, second] = [table(1), [&table(1)[..2], &table(2)[2..]].concat()];
    let chunks = [(&prompts[0], &first), (&prompts[1], &second)].map(|(prompt, blocks)| Chunk {
        start: 64,
        tokens: &prompt[64..],
        want: Want::All,
        blocks,
    });
    let together = model.step(&chunks).unwrap();
    let bits: Vec<u32> = together.rows.iter().map(|value| value.to_bits()).collect();
    assert!(alone[0].ends_with(&bits[..16 * tiny.vocab]) && alone[1].ends_with(&bits[16 * tiny.vocab..]));
}

#[test]
fn refused_steps_leave_no_trace() {
    let tiny = Tiny { context: 50, ..Tiny::default() };
    let mut model = open(&tiny, 2, KvType::F16);
    let prompt = tokens(5, 40, tiny.vocab);
    let whole = run(model.as_mut(), 1, 0, &prompt, &[40]);
    let (bytes, own, other) = (model.kv_bytes(), table(1), table(2));
    assert_eq!(bytes, 2 * model.block_bytes());
    let long = [0; 12];
    let good = Chunk { start: 0, tokens: &[1, 2], want: Want::Last, blocks: &other };
    let bad = [
        (Chunk { start: 39, tokens: &long, want: Want::Last, blocks: &own }, "context_length_exceeded"),
        (Chunk { start: 39, tokens: &[101], want: Want::Last, blocks: &own }, "invalid_request"),
        (Chunk { start: 39, tokens: &[1], want: Want::Last, blocks: &own[..1] }, "engine_internal"),
        (Chunk { start: 1, tokens: &[1], want: Want::Last, blocks: &other }, "engine_internal"),
    ];
    for (chunk, code) in bad {
        assert_eq!(model.step(&[good, chunk]).unwrap_err().code(), code);
        assert_eq!(model.kv_bytes(), bytes, "{code}");
    }
    assert!(whole.ends_with(&run(model.as_mut(), 1, 39, &prompt[39..], &[1])));
}

#[test]
fn only_wanted_rows_have_logits() {
    let tiny = Tiny::default();
    let mut model = open(&tiny, 1, KvType::F16);
    let step = |model: &mut Box<dyn Executor>, seq, want| {
        model.step(&[Chunk { start: 0, tokens: &[1, 2, 3], want, blocks: &table(seq) }]).unwrap().rows
    };
    let all = step(&mut model, 1, Want::All);
    assert_eq!(all.len(), 3 * tiny.vocab);
    assert_eq!(step(&mut model, 2, Want::Last), all[2 * tiny.vocab..]);
    assert!(step(&mut model, 3, Want::Nothing).is_empty());
    assert!(model.step(&[]).unwrap().rows.is_empty());
}

#[test]
fn contexts_beyond_training_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, Tiny::default().bytes()).unwrap();
    let file = Arc::new(Gguf::open(&path).unwrap());
    for (length, accepted) in [(None, Some(256)), (Some(100), Some(100)), (Some(257), None), (Some(0), None)] {
        let options = ExecutorOptions { threads: 1, context_length: length, ..ExecutorOptions::default() };
        match load(file.clone(), &options) {
            Ok(model) => assert_eq!(Some(model.context_length()), accepted),
            Err(error) => assert!(matches!(error, Error::InvalidRequest { .. }) && accepted.is_none(), "{error}"),
        }
    }
}

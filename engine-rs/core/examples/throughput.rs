//! How fast a model runs here: `cargo run --release -p quiver-core --example throughput -- MODEL [THREADS]`. Prints
//! tokens per second of prompt processing, of one stream and of eight.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use quiver_core::error::Result;
use quiver_core::executor::{BLOCK, BlockId, Chunk, Executor, ExecutorOptions, Want, load};
use quiver_core::gguf::Gguf;
use quiver_core::testing::Noise;

const CHUNK: usize = 128;

/// The blocks of a sequence of up to `length` tokens; apart from those of other numbers.
fn table(seq: usize, length: usize) -> Vec<BlockId> {
    let blocks = length.div_ceil(BLOCK);
    (seq * blocks..(seq + 1) * blocks).map(|id| id as BlockId).collect()
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_default();
    let threads = arguments.next().and_then(|threads| threads.parse().ok()).unwrap_or(0);
    let options = ExecutorOptions { threads, ..ExecutorOptions::default() };
    let start = Instant::now();
    let mut model = load(Arc::new(Gguf::open(Path::new(&path))?), &options)?;
    println!("load       {:.3} s", start.elapsed().as_secs_f64());
    let length = 2000.min(model.context_length() - 64);
    println!("prefill    {:.1} t/s over {length}", prefill(model.as_mut(), length)?);
    for streams in [1, 8] {
        println!("decode x{streams}  {:.1} t/s", decode(model.as_mut(), streams)?);
    }
    println!("decode     {:.1} t/s at depth {length}", decode_deep(model.as_mut(), length)?);
    Ok(())
}

fn prefill(model: &mut dyn Executor, length: usize) -> Result<f64> {
    let mut noise = Noise::new(1);
    let vocab = model.vocab() as u32;
    let tokens: Vec<u32> = (0..length).map(|_| noise.below(vocab)).collect();
    let (blocks, start) = (table(0, length), Instant::now());
    for (number, tokens) in tokens.chunks(CHUNK).enumerate() {
        let chunk = Chunk { start: number * CHUNK, tokens, want: Want::Last, blocks: &blocks };
        model.step(&[chunk])?;
    }
    Ok(length as f64 / start.elapsed().as_secs_f64())
}

const STEPS: usize = 48;

fn decode(model: &mut dyn Executor, streams: usize) -> Result<f64> {
    let tables: Vec<Vec<BlockId>> = (0..streams).map(|seq| table(100 + seq, STEPS)).collect();
    let start = Instant::now();
    for step in 0..STEPS {
        let tokens = [step as u32];
        let chunks: Vec<Chunk<'_>> =
            tables.iter().map(|blocks| Chunk { start: step, tokens: &tokens, want: Want::Last, blocks }).collect();
        model.step(&chunks)?;
    }
    Ok((STEPS * streams) as f64 / start.elapsed().as_secs_f64())
}

fn decode_deep(model: &mut dyn Executor, length: usize) -> Result<f64> {
    let (blocks, start) = (table(0, length + STEPS), Instant::now());
    for step in 0..STEPS {
        let chunk = Chunk { start: length + step, tokens: &[1], want: Want::Last, blocks: &blocks };
        model.step(&[chunk])?;
    }
    Ok(STEPS as f64 / start.elapsed().as_secs_f64())
}

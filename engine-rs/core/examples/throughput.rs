//! How fast a model runs here: `cargo run --release -p quiver-core --example throughput -- MODEL [THREADS]`. Prints
//! tokens per second of prompt processing, of one stream and of eight.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use quiver_core::error::Result;
use quiver_core::executor::{Chunk, Executor, ExecutorOptions, Want, load};
use quiver_core::gguf::Gguf;
use quiver_core::load_watch::LoadWatch;
use quiver_core::testing::Noise;

const CHUNK: usize = 128;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_default();
    let threads = arguments.next().and_then(|threads| threads.parse().ok()).unwrap_or(0);
    let options = ExecutorOptions { threads, ..ExecutorOptions::default() };
    let start = Instant::now();
    let mut model = load(Arc::new(Gguf::open(Path::new(&path))?), &options, &LoadWatch::default())?;
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
    let start = Instant::now();
    for (number, tokens) in tokens.chunks(CHUNK).enumerate() {
        let chunk = Chunk { seq: 0, start: number * CHUNK, tokens, want: Want::Last };
        model.step(&[chunk])?;
    }
    Ok(length as f64 / start.elapsed().as_secs_f64())
}

const STEPS: usize = 48;

fn decode(model: &mut dyn Executor, streams: u64) -> Result<f64> {
    let start = Instant::now();
    for step in 0..STEPS {
        let tokens = [step as u32];
        let chunks: Vec<Chunk<'_>> =
            (1..=streams).map(|seq| Chunk { seq, start: step, tokens: &tokens, want: Want::Last }).collect();
        model.step(&chunks)?;
    }
    (1..=streams).for_each(|seq| model.release(seq));
    Ok((STEPS * streams as usize) as f64 / start.elapsed().as_secs_f64())
}

fn decode_deep(model: &mut dyn Executor, length: usize) -> Result<f64> {
    let start = Instant::now();
    for step in 0..STEPS {
        let chunk = Chunk { seq: 0, start: length + step, tokens: &[1], want: Want::Last };
        model.step(&[chunk])?;
    }
    Ok(STEPS as f64 / start.elapsed().as_secs_f64())
}

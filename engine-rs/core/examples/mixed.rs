//! What others do to a stream: `cargo run --release -p quiver-core --example mixed -- MODEL [THREADS]`. Prints the pauses
//! between a stream's texts alone and while a prompt of 2,000 tokens enters, how long that prompt takes, what a second
//! request with the same beginning is spared, and how fast a stream is with and without guesses.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use quiver_core::engine::language::Language;
use quiver_core::engine::{Engine, RunOptions};
use quiver_core::error::Result;
use quiver_core::event::{Event, Timings, Work};
use quiver_core::executor::{ExecutorOptions, load};
use quiver_core::gguf::Gguf;
use quiver_core::request::{GenerateRequest, Prompt};
use quiver_core::testing::Noise;

const PROMPT: usize = 2000;
const TOKENS: u32 = 100;

/// Every token is a letter; none ends an answer.
struct Letters(usize);

impl Language for Letters {
    fn read(&self, request: &GenerateRequest) -> Result<Vec<u32>> {
        match &request.prompt {
            Prompt::Tokens(tokens) => Ok(tokens.clone()),
            _ => Ok(Vec::new()),
        }
    }

    fn bytes(&self, _: u32) -> &[u8] {
        b"x"
    }

    fn ends(&self, _: u32) -> bool {
        false
    }

    fn controls(&self) -> Vec<(u32, &[u8])> {
        Vec::new()
    }

    fn size(&self) -> usize {
        self.0
    }

    fn has_chat_template(&self) -> bool {
        false
    }
}

struct Bench {
    engine: Engine,
    wakes: Receiver<()>,
    vocab: usize,
    next: u64,
}

/// What was seen of one request.
#[derive(Default)]
struct Seen {
    texts: Vec<Instant>,
    end: Option<(Timings, Work)>,
}

impl Bench {
    fn submit(&mut self, seed: u64, length: usize, max_tokens: u32, speculate: bool) -> Result<u64> {
        let mut noise = Noise::new(seed);
        let tokens = (0..length).map(|_| noise.below(self.vocab as u32)).collect();
        let mut request = GenerateRequest::new(Prompt::Tokens(tokens));
        request.max_tokens = Some(max_tokens);
        (request.temperature, request.window, request.speculate) = (0.0, 65_536, Some(speculate));
        self.next += 1;
        self.engine.submit(self.next, request)?;
        Ok(self.next)
    }

    /// Watches until all of `ids` have ended, or `first` has so many texts.
    fn follow(&self, ids: &[u64], texts: usize) -> Vec<Seen> {
        let mut seen: Vec<Seen> = ids.iter().map(|_| Seen::default()).collect();
        while seen.iter().any(|seen| seen.end.is_none()) && seen[0].texts.len() < texts {
            if self.wakes.recv_timeout(Duration::from_secs(60)).is_err() {
                break;
            }
            for event in self.engine.drain() {
                let Some(at) = ids.iter().position(|id| *id == event.id()) else {
                    continue;
                };
                match event {
                    Event::Text { .. } => seen[at].texts.push(Instant::now()),
                    Event::Finished { timings, work, .. } => seen[at].end = Some((timings, work)),
                    Event::Started { .. } | Event::Failed { .. } => {}
                }
            }
        }
        seen
    }
}

/// The longest time between two texts, in milliseconds.
fn longest(texts: &[Instant]) -> f64 {
    let gaps = texts.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3);
    gaps.fold(0.0, f64::max)
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_default();
    let threads = arguments.next().and_then(|threads| threads.parse().ok()).unwrap_or(0);
    let options = ExecutorOptions { threads, context_length: Some(4096), ..ExecutorOptions::default() };
    let executor = load(Arc::new(Gguf::open(Path::new(&path))?), &options)?;
    let (vocab, (sender, wakes)) = (executor.vocab(), channel());
    let wake = Box::new(move || {
        let _ = sender.send(());
    });
    let engine = Engine::start(executor, Arc::new(Letters(vocab)), RunOptions::default(), wake)?;
    let mut bench = Bench { engine, wakes, vocab, next: 0 };
    pauses(&mut bench)?;
    guesses(&mut bench)?;
    println!("{:?}", bench.engine.statistics());
    Ok(())
}

fn pauses(bench: &mut Bench) -> Result<()> {
    let stream = bench.submit(1, 32, 4000, false)?;
    let alone = bench.follow(&[stream], 60);
    println!("stream alone: longest pause {:.1} ms", longest(&alone[0].texts[4..]));
    for round in ["first", "again"] {
        let prompt = bench.submit(2, PROMPT, 1, false)?;
        let seen = bench.follow(&[prompt, stream], 2);
        let Some((timings, work)) = seen[0].end else { continue };
        println!(
            "prompt of {PROMPT} beside it, {round}: longest pause {:.1} ms, first token after {:.0} ms, {} tokens cached",
            longest(&seen[1].texts),
            timings.first_token.as_secs_f64() * 1e3,
            work.cached_tokens
        );
    }
    bench.engine.cancel(stream);
    Ok(())
}

fn guesses(bench: &mut Bench) -> Result<()> {
    for speculate in [false, true] {
        let id = bench.submit(3, 64, TOKENS, speculate)?;
        if let Some((timings, work)) = bench.follow(&[id], usize::MAX)[0].end {
            let rate = f64::from(TOKENS - 1) / timings.decode.as_secs_f64();
            println!("guesses {speculate}: {rate:.1} t/s, {} of {} right", work.accepted_tokens, work.drafted_tokens);
        }
    }
    Ok(())
}

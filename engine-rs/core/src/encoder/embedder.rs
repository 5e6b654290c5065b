//! The running service over an encoder: one thread that computes, any number that wait. Texts of several requests are
//! computed together, in turns. A request is read and checked on the thread of whoever waits for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use rayon::ThreadPool;

use super::turns::{Progress, choose};
use super::{Encoder, normalise};
use crate::error::{Error, Result};
use crate::executor::threads::{block_signals, pool};
use crate::gguf::Gguf;
use crate::tokenizer::Tokenizer;

/// Tokens computed together. More would not be faster, and would hold up who comes meanwhile.
const BATCH_TOKENS: usize = 1024;

/// A text, or its tokens.
#[derive(Debug, Clone)]
pub enum Input {
    Text(String),
    Tokens(Vec<u32>),
}

/// The vectors of a request, one after the other, and how many tokens each text has.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    pub width: usize,
    pub values: Vec<f32>,
    pub tokens: Vec<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncoderInfo {
    pub architecture: String,
    /// Empty where the file has none.
    pub name: String,
    pub parameters: u64,
    pub context_length: usize,
    pub vocabulary: usize,
    /// Numbers of an embedding.
    pub width: usize,
    /// `mean`, `cls` or `last`.
    pub pooling: &'static str,
    pub size_bytes: u64,
}

/// Texts as tokens, on their way to the thread.
struct Job {
    texts: Vec<Vec<u32>>,
    rows: Vec<Vec<f32>>,
    answer: Sender<Result<Vec<Vec<f32>>>>,
    cancelled: Arc<AtomicBool>,
}

enum Command {
    Embed(Job),
    Close,
}

/// What a request needs of the model.
struct Shared {
    encoder: Encoder,
    tokenizer: Tokenizer,
    commands: Mutex<Option<Sender<Command>>>,
}

pub struct Embedder {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    pub info: EncoderInfo,
}

impl Embedder {
    /// Loads an encoder and starts its thread. `threads` 0 means one per processor.
    ///
    /// # Errors
    /// Those of `Gguf::open`, `Tokenizer::from_gguf` and `Encoder::open`.
    pub fn open(path: &Path, threads: usize) -> Result<Embedder> {
        let file = Arc::new(Gguf::open(path)?);
        let encoder = Encoder::open(&file)?;
        let tokenizer = Tokenizer::from_gguf(&file)?;
        let info = describe(&file, &encoder, &tokenizer)?;
        let (commands, received) = channel();
        let shared = Arc::new(Shared { encoder, tokenizer, commands: Mutex::new(Some(commands)) });
        let (worker, threads) = (Arc::clone(&shared), pool(threads)?);
        let thread = Builder::new()
            .name("quiver-encoder".to_owned())
            .spawn(move || {
                block_signals();
                run(&worker.encoder, &threads, &received);
            })
            .map_err(|error| Error::Internal(format!("cannot start the encoder's thread: {error}")))?;
        Ok(Embedder { shared, thread: Mutex::new(Some(thread)), info })
    }

    /// A request that has not begun: `Ticket::wait` does everything. `dimensions`: how many numbers of each vector to
    /// keep.
    ///
    /// # Errors
    /// `InvalidRequest` for dimensions that the model does not have.
    pub fn request(&self, inputs: Vec<Input>, dimensions: Option<usize>) -> Result<Ticket> {
        let width = self.info.width;
        let kept = dimensions.unwrap_or(width);
        if kept == 0 || kept > width {
            let reason = format!("{kept} is outside 1..={width}, what the model makes");
            return Err(Error::invalid("dimensions", reason));
        }
        let (answer, answers) = channel();
        Ok(Ticket {
            shared: Arc::clone(&self.shared),
            inputs,
            width: kept,
            answer,
            answers: Mutex::new(answers),
            cancelled: Arc::default(),
        })
    }

    /// Ends the thread after the batch under way. Open requests fail with `Stopped`.
    pub fn close(&self) {
        if let Some(commands) = lock(&self.shared.commands).take() {
            let _ = commands.send(Command::Close);
        }
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Embedder {
    fn drop(&mut self) {
        self.close();
    }
}

/// One request for embeddings.
pub struct Ticket {
    shared: Arc<Shared>,
    inputs: Vec<Input>,
    width: usize,
    answer: Sender<Result<Vec<Vec<f32>>>>,
    answers: Mutex<Receiver<Result<Vec<Vec<f32>>>>>,
    cancelled: Arc<AtomicBool>,
}

impl Ticket {
    /// Reads the inputs, has them computed and waits for that: blocks.
    ///
    /// # Errors
    /// `InvalidRequest` for an empty text or an unknown token and `ContextOverflow`, of the first input they are true
    /// of; `Stopped` after `cancel` or `Embedder::close`.
    pub fn wait(&self) -> Result<Embedded> {
        let texts = self.inputs.iter().enumerate().map(|(at, input)| self.read(at, input));
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let tokens = texts.iter().map(Vec::len).collect();
        let rows = Vec::with_capacity(texts.len());
        let job = Job { rows, texts, answer: self.answer.clone(), cancelled: Arc::clone(&self.cancelled) };
        match &*lock(&self.shared.commands) {
            Some(commands) if commands.send(Command::Embed(job)).is_ok() => {}
            _ => return Err(Error::Stopped),
        }
        let rows = lock(&self.answers).recv().unwrap_or(Err(Error::Stopped))?;
        Ok(Embedded { width: self.width, values: self.flatten(rows), tokens })
    }

    /// Ends `wait` at once. What is being computed of the request now is wasted, and no more of it.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        let _ = self.answer.send(Err(Error::Stopped));
    }

    fn read(&self, at: usize, input: &Input) -> Result<Vec<u32>> {
        let tokens = match input {
            Input::Text(text) => self.shared.tokenizer.encode(text, true, false),
            Input::Tokens(tokens) => tokens.clone(),
        };
        match self.shared.encoder.check(&tokens) {
            Err(Error::InvalidRequest { reason, .. }) => Err(Error::invalid(format!("input[{at}]"), reason)),
            checked => checked.map(|()| tokens),
        }
    }

    fn flatten(&self, rows: Vec<Vec<f32>>) -> Vec<f32> {
        let mut values = Vec::with_capacity(rows.len() * self.width);
        for mut row in rows {
            if self.width < row.len() {
                row.truncate(self.width);
                normalise(&mut row);
            }
            values.extend(row);
        }
        values
    }
}

/// The thread: takes requests, computes a batch of theirs, answers those that are complete.
fn run(encoder: &Encoder, threads: &ThreadPool, commands: &Receiver<Command>) {
    let mut jobs: Vec<Job> = Vec::new();
    loop {
        let first = if jobs.is_empty() { Some(commands.recv().unwrap_or(Command::Close)) } else { None };
        for command in first.into_iter().chain(commands.try_iter()) {
            match command {
                Command::Embed(job) => jobs.push(job),
                Command::Close => return jobs.iter().for_each(|job| answer(job, Err(Error::Stopped))),
            }
        }
        jobs.retain(|job| !job.cancelled.load(Ordering::Relaxed));
        if !jobs.is_empty() {
            step(encoder, threads, &mut jobs);
        }
    }
}

fn step(encoder: &Encoder, threads: &ThreadPool, jobs: &mut Vec<Job>) {
    let progress = |job: &Job| Progress { lengths: job.texts.iter().map(Vec::len).collect(), done: job.rows.len() };
    let chosen = choose(&jobs.iter().map(progress).collect::<Vec<_>>(), BATCH_TOKENS);
    let next = |(job, count): (&Job, &usize)| -> Vec<Vec<u32>> { job.texts[job.rows.len()..][..*count].to_vec() };
    let texts: Vec<Vec<u32>> = jobs.iter().zip(&chosen).flat_map(next).collect();
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let computed = catch_unwind(AssertUnwindSafe(|| threads.install(|| encoder.embed(&texts))));
    match computed.unwrap_or_else(|_| Err(Error::Internal("the encoder panicked".to_owned()))) {
        Ok(rows) => {
            let mut rows = rows.into_iter();
            for (job, count) in jobs.iter_mut().zip(&chosen) {
                job.rows.extend(rows.by_ref().take(*count));
            }
            jobs.retain_mut(|job| {
                let complete = job.rows.len() == job.texts.len();
                if complete {
                    let rows = std::mem::take(&mut job.rows);
                    answer(job, Ok(rows));
                }
                !complete
            });
        }
        Err(error) => {
            let text = error.to_string();
            jobs.drain(..).for_each(|job| answer(&job, Err(Error::Internal(text.clone()))));
        }
    }
}

/// Nobody may wait any more.
fn answer(job: &Job, result: Result<Vec<Vec<f32>>>) {
    let _ = job.answer.send(result);
}

fn describe(file: &Gguf, encoder: &Encoder, tokenizer: &Tokenizer) -> Result<EncoderInfo> {
    Ok(EncoderInfo {
        architecture: encoder.spec.architecture.to_owned(),
        name: file.opt_str("general.name")?.unwrap_or_default().to_owned(),
        parameters: file.tensors().map(|tensor| tensor.info.elements() as u64).sum(),
        context_length: encoder.spec.context_length,
        vocabulary: tokenizer.size(),
        width: encoder.spec.width,
        pooling: encoder.spec.pooling.name(),
        size_bytes: file.size_bytes() as u64,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

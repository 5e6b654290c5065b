//! How fast is attention? A decode step of a model with 28 layers and 8 key-value heads of width 128 after 2,048 and 8,192
//! positions, and the prefill of one layer of it, on one thread and on two. Decode is bound by memory (GB/s of the cache
//! read), prefill by arithmetic (GFLOPS of scores and sums that causality leaves).
//!
//!     cargo run --release -p quiver-kernels --example attention [decode|prefill] [group]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use quiver_kernels::attention::{AttendScratch, Cached, Head, Queries, attend_rows};
use quiver_kernels::testing::Noise;
use quiver_kernels::{BLOCK, Isa, KvLayout, KvType, Output};

const LAYERS: usize = 28;
const HEADS: usize = 8;
const WIDTH: usize = 128;

/// Rows of a prefill task.
const ROWS: usize = 64;

const ROUNDS: usize = 15;

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// A filled cache of one sequence.
struct Cache {
    layout: KvLayout,
    blocks: Vec<Vec<Line>>,
}

impl Cache {
    fn new(kind: KvType, layers: usize, length: usize) -> Option<Cache> {
        let layout = KvLayout::new(kind, layers, HEADS, WIDTH, WIDTH)?;
        let blocks = vec![vec![Line([0; 64]); layout.block_bytes() / 64]; length.div_ceil(BLOCK)];
        let mut cache = Cache { layout, blocks };
        let rows = Noise::new(1).floats(64 * WIDTH);
        for position in 0..length {
            let block = cache.blocks[position / BLOCK].as_mut_ptr().cast();
            for (layer, head) in (0..layers).flat_map(|layer| (0..HEADS).map(move |head| (layer, head))) {
                let row = |at: usize| &rows[(position * 7 + layer * 5 + head * 3 + at) % 64 * WIDTH..][..WIDTH];
                let place = layout.offsets(layer, head);
                // SAFETY: the block is as large as the layout says.
                unsafe { layout.store(Isa::best(), block, place, position % BLOCK, row(0), row(1)) };
            }
        }
        Some(cache)
    }

    fn blocks(&self) -> Vec<*const u8> {
        self.blocks.iter().map(|block| block.as_ptr().cast()).collect()
    }
}

/// Tasks `(layer, head, first row, rows)` of one step.
type Task = (usize, usize, usize, usize);

/// Seconds of a step. On one thread each task counts with its best of some rounds, so that whatever else the machine does
/// disturbs little; on more, the best whole round counts.
fn run(cache: &Cache, group: usize, tasks: &[Task], threads: usize) -> f64 {
    let head = Head { key_width: WIDTH, value_width: WIDTH, group, scale: 0.09, softcap: 0.0, window: 0 };
    let queries = Noise::new(2).floats(ROWS * group * WIDTH);
    let mut best = vec![f64::INFINITY; tasks.len()];
    let mut whole = f64::INFINITY;
    for _ in 0..ROUNDS {
        let (next, start) = (AtomicUsize::new(0), Instant::now());
        let spent: Vec<(usize, f64)> = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..threads).map(|_| scope.spawn(|| work(cache, &head, &queries, tasks, &next))).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
        });
        whole = whole.min(start.elapsed().as_secs_f64());
        spent.into_iter().for_each(|(task, seconds)| best[task] = best[task].min(seconds));
    }
    if threads == 1 { best.iter().sum() } else { whole }
}

fn work(cache: &Cache, head: &Head, queries: &[f32], tasks: &[Task], next: &AtomicUsize) -> Vec<(usize, f64)> {
    let mut spent = Vec::new();
    let (blocks, stride) = (cache.blocks(), head.group * WIDTH);
    let mut scratch = AttendScratch::default();
    let mut out = vec![0.0; ROWS * stride];
    loop {
        let task = next.fetch_add(1, Ordering::Relaxed);
        let Some((layer, number, first, rows)) = tasks.get(task).copied() else { return spent };
        let cached = Cached { layout: &cache.layout, place: cache.layout.offsets(layer, number), blocks: &blocks };
        let queries = Queries { start: queries.as_ptr(), stride };
        let start = Instant::now();
        // SAFETY: queries and results have `ROWS` rows, and all positions are stored.
        unsafe {
            let out = Output::new(out.as_mut_ptr(), stride);
            attend_rows(Isa::best(), head, first, rows, queries, &cached, &mut scratch, out);
        }
        std::hint::black_box(&out);
        spent.push((task, start.elapsed().as_secs_f64()));
    }
}

fn decode(kind: KvType, group: usize) -> Option<()> {
    let cache = Cache::new(kind, LAYERS, 8192)?;
    for length in [2048, 8192] {
        let tasks: Vec<Task> = (0..LAYERS * HEADS).map(|at| (at / HEADS, at % HEADS, length - 1, 1)).collect();
        let bytes = cache.layout.block_bytes() * length / BLOCK;
        for threads in [1, 2] {
            let seconds = run(&cache, group, &tasks, threads);
            let (ms, rate) = (seconds * 1e3, bytes as f64 / seconds / 1e9);
            println!("decode  {kind:?} group {group} at {length}, {threads} threads: {ms:.2} ms, {rate:.1} GB/s");
        }
    }
    Some(())
}

fn prefill(kind: KvType, group: usize) -> Option<()> {
    let cache = Cache::new(kind, 1, 2048)?;
    for length in [512, 2048] {
        let rows = (0..length).step_by(ROWS).rev();
        let tasks: Vec<Task> = rows.flat_map(|first| (0..HEADS).map(move |head| (0, head, first, ROWS))).collect();
        let scores = HEADS * group * length * (length + 1) / 2;
        for threads in [1, 2] {
            let seconds = run(&cache, group, &tasks, threads);
            let (ms, rate) = (seconds * 1e3, (scores * 4 * WIDTH) as f64 / seconds / 1e9);
            println!("prefill {kind:?} group {group} of {length}, {threads} threads: {ms:.2} ms, {rate:.1} GFLOPS");
        }
    }
    Some(())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| {
        arguments.iter().all(|argument| argument != "decode" && argument != "prefill")
            || arguments.iter().any(|argument| argument == name)
    };
    let group = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(2);
    println!("{:?}", Isa::best());
    for kind in [KvType::F16, KvType::Q8, KvType::F32] {
        if wanted("decode") && kind != KvType::F32 {
            decode(kind, group);
        }
        if wanted("prefill") {
            prefill(kind, group);
        }
    }
}

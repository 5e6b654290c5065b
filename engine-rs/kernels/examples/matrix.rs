//! How fast are matrix products? For each kind of weights, number of input rows and number of threads: the best of some
//! runs over more weights than the caches hold, as milliseconds, operations and bytes of weights per second.
//!
//!     cargo run --release -p quiver-kernels --example matrix [-- KIND... ROWS...]
//!
//! On Linux the time is that of the processor, so that other processes on the machine disturb little.

use quiver_kernels::testing::{Noise, random_blocks};
use quiver_kernels::{BlockType, Inputs, Isa, Matrix, MatrixScratch, Output, SUPPORTED};
use std::time::Duration;

const ROWS: usize = 4096;
const COLUMNS: usize = 14336;
const KINDS: [BlockType; 4] = [BlockType::Q4_K, BlockType::Q6_K, BlockType::Q8_0, BlockType::F16];
const INPUT_ROWS: [usize; 7] = [1, 2, 4, 8, 16, 64, 512];
/// More than the caches of most processors hold.
const WEIGHTS: usize = 256 << 20;

fn main() {
    let (numbers, kinds): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|word| word.parse::<usize>().is_ok());
    let numbers: Vec<usize> = numbers.iter().filter_map(|word| word.parse().ok()).collect();
    let input_rows = if numbers.is_empty() { &INPUT_ROWS[..] } else { &numbers };
    for kind in SUPPORTED {
        if kinds.iter().any(|name| name == kind.name) || kinds.is_empty() && KINDS.contains(&kind) {
            measure(kind, input_rows);
        }
    }
}

fn measure(kind: BlockType, input_rows: &[usize]) {
    let isa = Isa::best();
    let mut noise = Noise::new(1);
    let Some(row_bytes) = kind.bytes_for(COLUMNS) else { return };
    // A few random rows are as good as thousands, and quicker to make.
    let bytes = random_blocks(&mut noise, kind, 16 * COLUMNS, 1.0).repeat(ROWS / 16);
    let start = now();
    let mut matrices = Vec::new();
    let mut size = 0;
    while size < WEIGHTS {
        match Matrix::pack(isa, kind, ROWS, COLUMNS, &bytes) {
            Ok(matrix) => {
                size += matrix.bytes();
                matrices.push(matrix);
            }
            Err(error) => return println!("{kind}: {error}"),
        }
    }
    let rate = (row_bytes * ROWS * matrices.len()) as f64 / now().saturating_sub(start).as_secs_f64() / 1e9;
    println!("{kind} on {isa:?}: {:.1} MB of tiles, packed at {rate:.2} GB/s", size as f64 / 1e6);
    for &rows in input_rows {
        let mut inputs = Inputs::default();
        inputs.reset(rows, COLUMNS, matrices[0].format().into());
        for row in 0..rows {
            // SAFETY: one thread.
            unsafe { inputs.set_row(isa, row, &noise.floats(COLUMNS)) };
        }
        for threads in [1, 2] {
            // Few rows: all matrices. Many: one of them takes long enough.
            let used = if rows <= 16 { &matrices[..] } else { &matrices[..1] };
            let seconds = (0..2).map(|_| average(used, &inputs, threads)).fold(f64::MAX, f64::min);
            println!(
                "  {rows:3} rows, {threads} threads: {:9.3} ms {:7.1} GOPS {:6.1} GB/s",
                seconds * 1e3,
                (2 * rows * ROWS * COLUMNS) as f64 / seconds / 1e9,
                matrices[0].bytes() as f64 / seconds / 1e9,
            );
        }
    }
}

/// Seconds for a matrix, averaged over passes that last long enough for the kernel's clock of processor time.
fn average(matrices: &[Matrix], inputs: &Inputs, threads: usize) -> f64 {
    let (mut spent, mut passes) = (Duration::ZERO, 0);
    while spent < Duration::from_millis(80) {
        spent += pass(matrices, inputs, threads);
        passes += 1;
    }
    spent.as_secs_f64() / (passes * matrices.len()) as f64
}

/// The longest time of a thread over all matrices, whose strips are divided evenly.
fn pass(matrices: &[Matrix], inputs: &Inputs, threads: usize) -> Duration {
    let mut out = vec![0.0; ROWS * inputs.rows()];
    // SAFETY: `out` has a row of `ROWS` for each input row.
    let out = unsafe { Output::new(out.as_mut_ptr(), ROWS) };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || {
                    let (start, mut scratch) = (now(), MatrixScratch::default());
                    for matrix in matrices {
                        let share = |of: usize| matrix.strips() * of / threads;
                        let strips = share(worker)..share(worker + 1);
                        // SAFETY: each thread has strips of its own.
                        unsafe { matrix.multiply(strips, inputs, 0..inputs.rows(), out, &mut scratch) };
                    }
                    now().saturating_sub(start)
                })
            })
            .collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).max().unwrap_or_default()
    })
}

/// This thread's processor time, or else the time of day.
fn now() -> Duration {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let spent = spent.and_then(|text| text.split(' ').next()?.parse().ok()).map(Duration::from_nanos);
    spent.unwrap_or_else(|| std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default())
}

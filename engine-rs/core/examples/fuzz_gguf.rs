//! Loads damaged model files for as long as asked: `cargo run --release -p quiver-core --example fuzz_gguf -- SECONDS [SEED]
//! [FOLDER]`. Ends with code 1 at the first panic, at a case that takes too much time or memory; the file is kept in FOLDER
//! (the system's folder for temporary files), also when the process itself dies of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use quiver_core::testing::{Meter, Noise, corpus, damaged, exercise};

#[global_allocator]
static METER: Meter = Meter::new();

// Files of some hundred kilobytes.
const MOST_BYTES: usize = 64 << 20;
const LONGEST: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().and_then(|given| given.parse().ok()).unwrap_or(default);
    let (seconds, seed) = (number(10), number(0));
    let folder = std::env::args().nth(3).map_or_else(std::env::temp_dir, PathBuf::from);
    let path = folder.join(format!("fuzz-{}.gguf", std::process::id()));
    let (files, mut noise, began) = (corpus(), Noise::new(seed), Instant::now());
    let (mut cases, mut loaded, mut worst) = (0u64, 0u64, (Duration::ZERO, 0));
    while began.elapsed() < Duration::from_secs(seconds) {
        let pick = |noise: &mut Noise| noise.below(files.len() as u32) as usize;
        let (whole, other) = (pick(&mut noise), pick(&mut noise));
        let bytes = damaged(&mut noise, &files[whole], &files[other]);
        // A new file each time: the one before may still be mapped.
        let _ = std::fs::remove_file(&path);
        if let Err(error) = std::fs::write(&path, &bytes) {
            eprintln!("error: {}: {error}", path.display());
            return ExitCode::from(2);
        }
        let run = || {
            let start = Instant::now();
            let (peak, outcome) = METER.peak(|| catch_unwind(AssertUnwindSafe(|| exercise(&path).is_ok())));
            (start.elapsed(), peak, outcome)
        };
        let (mut took, peak, outcome) = run();
        if took > LONGEST {
            // A machine that stood still looks like this too, but not twice.
            took = run().0;
        }
        worst = (worst.0.max(took), worst.1.max(peak));
        cases += 1;
        match outcome {
            Ok(ran) if took <= LONGEST && peak <= MOST_BYTES => loaded += u64::from(ran),
            outcome => {
                let panicked = outcome.is_err();
                println!("case {cases}: panic {panicked}, {took:?}, {peak} bytes; the file is {}", path.display());
                return ExitCode::FAILURE;
            }
        }
    }
    let _ = std::fs::remove_file(&path);
    println!("{cases} cases, {loaded} of them loaded; slowest {:?}, most memory {} bytes", worst.0, worst.1);
    ExitCode::SUCCESS
}

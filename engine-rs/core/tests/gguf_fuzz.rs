//! A short run of what `examples/fuzz_gguf.rs` does for hours: damaged files with tokenizers, templates and every architecture
//! end in a model or an error, in little time and little memory.
#![allow(clippy::unwrap_used, reason = "a test helper may panic as a test may")]

use std::time::{Duration, Instant};

use quiver_core::testing::{Meter, Noise, corpus, damaged, exercise};

#[global_allocator]
static METER: Meter = Meter::new();

const CASES: usize = 1500;
const MOST_BYTES: usize = 64 << 20;
const LONGEST: Duration = Duration::from_secs(10);

// One test, so that no other one's memory is counted.
#[test]
fn damaged_models_are_refused_cheaply() {
    let folder = tempfile::tempdir().unwrap();
    let (files, mut noise) = (corpus(), Noise::new(7));
    for (number, file) in files.iter().enumerate() {
        let path = folder.path().join(format!("whole-{number}.gguf"));
        std::fs::write(&path, file).unwrap();
        exercise(&path).unwrap();
    }
    let mut refused = 0;
    for case in 0..CASES {
        let other = &files[noise.below(files.len() as u32) as usize];
        let bytes = damaged(&mut noise, &files[case % files.len()], other);
        let path = folder.path().join(format!("{case}.gguf"));
        std::fs::write(&path, bytes).unwrap();
        let run = || {
            let began = Instant::now();
            let (peak, outcome) = METER.peak(|| exercise(&path));
            (began.elapsed(), peak, outcome)
        };
        let (mut took, peak, outcome) = run();
        if took > LONGEST {
            // A machine that stood still looks like this too, but not twice.
            took = run().0;
        }
        assert!(took < LONGEST && peak < MOST_BYTES, "case {case}: {took:?}, {peak} bytes");
        refused += usize::from(outcome.is_err());
        std::fs::remove_file(&path).unwrap();
    }
    assert!((CASES / 4..CASES).contains(&refused), "{refused} of {CASES}");
}

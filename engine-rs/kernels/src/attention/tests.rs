//! Attention against a reference in f64 that reads the cache number by number, and against itself computed otherwise.

use super::*;
use crate::kv::{KvType, SHARED};
use crate::testing::Noise;

const KINDS: [KvType; 3] = [KvType::F16, KvType::F32, KvType::Q8];

/// Of attention over values within -1..1.
const TOLERANCE: f64 = 3e-6;

/// Of Q8 against what was stored: half a step of 1 / 127 in the values, and as much again through the keys.
const Q8_TOLERANCE: f64 = 8e-3;

const HEAD: Head = Head { key_width: 64, value_width: 64, group: 2, scale: 0.3, softcap: 0.0, window: 0 };

/// A sequence of `length` positions in a cache of two layers and two heads, and queries for all of its positions.
struct Case {
    head: Head,
    layout: KvLayout,
    place: KvPlace,
    length: usize,
    memory: Vec<Floats>,
    blocks: Vec<*const u8>,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Case {
    fn new(head: Head, kind: KvType, length: usize) -> Case {
        let layout = KvLayout::new(kind, 2, 2, head.key_width, head.value_width).unwrap();
        let mut noise = Noise::new((length + head.key_width) as u64);
        let mut memory: Vec<Floats> = (0..length.div_ceil(BLOCK)).map(|_| Floats::default()).collect();
        let place = layout.offsets(1, 1);
        let mut case = Case {
            head,
            layout,
            place,
            length,
            blocks: memory.iter_mut().map(|block| nan_block(block, layout.block_bytes())).collect(),
            memory,
            queries: noise.floats(length * head.group * head.key_width),
            keys: noise.floats(length * head.key_width),
            values: noise.floats(length * head.value_width),
        };
        for position in 0..length {
            case.store(position, position);
        }
        case
    }

    /// Stores the key and value that belong to `from` at a position.
    fn store(&mut self, position: usize, from: usize) {
        let Head { key_width, value_width, .. } = self.head;
        let block = self.memory[position / BLOCK].room(0).cast();
        let key = &self.keys[from * key_width..][..key_width];
        let value = &self.values[from * value_width..][..value_width];
        // SAFETY: every block has the layout's size.
        unsafe { self.layout.store(Isa::best(), block, self.place, position % BLOCK, key, value) };
    }

    fn cached(&self) -> Cached<'_> {
        Cached { layout: &self.layout, place: self.place, blocks: &self.blocks }
    }

    fn row_width(&self) -> usize {
        self.head.group * self.head.value_width
    }

    fn queries(&self, first: usize) -> Queries {
        let stride = self.head.group * self.head.key_width;
        Queries { start: self.queries[first * stride..].as_ptr(), stride }
    }

    fn run(&self, isa: Isa, first: usize, rows: usize, scratch: &mut AttendScratch) -> Vec<f32> {
        assert!(first + rows <= self.length);
        // One more than a row, to see that the stride is kept.
        let stride = self.row_width() + 1;
        let mut out = vec![f32::NAN; rows * stride];
        // SAFETY: queries, blocks and results of all rows are there.
        unsafe {
            let output = Output::new(out.as_mut_ptr(), stride);
            attend_rows(isa, &self.head, first, rows, self.queries(first), &self.cached(), scratch, output);
        }
        out.chunks(stride).flat_map(|row| row[..stride - 1].to_vec()).collect()
    }

    /// The same by segments, in two calls.
    fn run_split(&self, isa: Isa, first: usize, rows: usize) -> Vec<f32> {
        let mut scratch = AttendScratch::default();
        let all = self.head.segments(first, rows);
        let length = self.head.partial_len(rows);
        let mut partial = vec![f32::NAN; all.len() * length];
        let middle = all.start + all.len() / 2;
        let (near, far) = partial.split_at_mut((middle - all.start) * length);
        let mut out = vec![f32::NAN; rows * self.row_width()];
        // SAFETY: as in `run`.
        unsafe {
            let (queries, cached) = (self.queries(first), self.cached());
            attend_segments(isa, &self.head, first, rows, queries, &cached, middle..all.end, &mut scratch, far);
            attend_segments(isa, &self.head, first, rows, queries, &cached, all.start..middle, &mut scratch, near);
            let output = Output::new(out.as_mut_ptr(), self.row_width());
            merge(isa, &self.head, rows, &partial, &mut scratch, output);
        }
        out
    }

    /// Element `at` of a position's key or value, as the cache has it.
    fn cell(&self, position: usize, keys: bool, at: usize) -> f64 {
        let (slot, width) = (position % BLOCK, if keys { self.head.key_width } else { self.head.value_width });
        let part = self.blocks[position / BLOCK].wrapping_add(if keys { self.place.keys } else { self.place.values });
        let index = if keys { at * BLOCK + slot } else { slot * width + at };
        let half = |index: usize| {
            // SAFETY: the index is inside the part.
            half::f16::from_bits(unsafe { part.cast::<u16>().add(index).read() }).to_f64()
        };
        match self.layout.kind() {
            KvType::F16 => half(index),
            // SAFETY: the index is inside the part.
            KvType::F32 => f64::from(unsafe { part.cast::<f32>().add(index).read() }),
            KvType::Q8 => {
                // SAFETY: the index is inside the part.
                let cell = f64::from(unsafe { part.cast::<i8>().add(index).read() });
                cell * half(width * BLOCK / 2 + at / SHARED * BLOCK + slot)
            }
        }
    }

    /// What query `member` at a position should get, from the cache or from what was stored.
    fn reference(&self, position: usize, member: usize, stored: bool) -> Vec<f64> {
        let Head { key_width, value_width, group, scale, softcap, .. } = self.head;
        let query = &self.queries[(position * group + member) * key_width..][..key_width];
        let number = |at: usize, keys: bool, element: usize| match (stored, keys) {
            (true, true) => f64::from(self.keys[at * key_width + element]),
            (true, false) => f64::from(self.values[at * value_width + element]),
            (false, _) => self.cell(at, keys, element),
        };
        let seen = self.head.sees(position);
        let score = |at: usize| {
            let product = query.iter().enumerate().map(|(i, q)| f64::from(*q) * number(at, true, i)).sum::<f64>();
            let score = product * f64::from(scale);
            if softcap == 0.0 { score } else { f64::from(softcap) * (score / f64::from(softcap)).tanh() }
        };
        let scores: Vec<f64> = seen.clone().map(score).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let weighted =
            |column| weights.iter().zip(seen.clone()).map(|(w, at)| w * number(at, false, column)).sum::<f64>();
        (0..value_width).map(|column| weighted(column) / sum).collect()
    }

    /// Compares some rows of an attention with the reference.
    fn check(&self, isa: Isa, first: usize, rows: usize, stored: bool, tolerance: f64) {
        let got = self.run(isa, first, rows, &mut AttendScratch::default());
        for row in [0, rows / 2, rows - 1] {
            for member in [0, self.head.group - 1] {
                let start = row * self.row_width() + member * self.head.value_width;
                let expected = self.reference(first + row, member, stored);
                for (at, (got, expected)) in got[start..].iter().zip(expected).enumerate() {
                    let what = || {
                        format!("{isa:?} {:?} {:?} row {row} of {rows} at {first}, {at}", self.layout.kind(), self.head)
                    };
                    assert!((f64::from(*got) - expected).abs() < tolerance, "{}: {got} {expected}", what());
                }
            }
        }
    }
}

/// A block whose bits are all set: no number of the kinds that have such.
fn nan_block(block: &mut Floats, bytes: usize) -> *const u8 {
    let start: *mut u8 = block.room(bytes / 4).cast();
    // SAFETY: the buffer has that many bytes.
    unsafe { start.write_bytes(0xff, bytes) };
    start
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn attention_matches_the_reference() {
    let widths = [(16, 16), (64, 64), (80, 96), (96, 80), (128, 128), (256, 256), (20, 75), (192, 128), (1, 1)];
    let groups = [1, 2, 4, 7, 8, 3, 5];
    for kind in KINDS {
        for (at, (key_width, value_width)) in widths.into_iter().enumerate() {
            let (group, scale) = (groups[at % groups.len()], 2.0 / (key_width as f32).sqrt());
            let case = Case::new(Head { key_width, value_width, group, scale, ..HEAD }, kind, 300);
            for isa in Isa::available() {
                for (first, rows) in [(0, 1), (0, 40), (31, 1), (32, 2), (255, 1), (256, 1), (250, 20)] {
                    case.check(isa, first, rows, false, TOLERANCE);
                }
            }
        }
    }
}

#[test]
fn every_group_matches_the_reference() {
    for (kind, group) in KINDS.into_iter().flat_map(|kind| (1..=13).map(move |group| (kind, group))) {
        let case = Case::new(Head { key_width: 16, value_width: 40, group, ..HEAD }, kind, 70);
        for (isa, (first, rows)) in Isa::available().into_iter().flat_map(|isa| [(69, 1), (0, 70)].map(|at| (isa, at)))
        {
            case.check(isa, first, rows, false, TOLERANCE);
        }
    }
}

#[test]
fn far_positions_match_the_reference() {
    for kind in KINDS {
        let case = Case::new(HEAD, kind, 1070);
        for (isa, (first, rows)) in
            Isa::available().into_iter().flat_map(|isa| [(1000, 1), (1000, 70)].map(|at| (isa, at)))
        {
            case.check(isa, first, rows, false, TOLERANCE);
        }
    }
}

#[test]
fn windows_and_caps_match_the_reference() {
    for (kind, softcap) in KINDS.into_iter().flat_map(|kind| [(kind, 0.0), (kind, 1.5)]) {
        for window in [1, 5, 32, 100, 256, 300, 1000] {
            let case = Case::new(Head { softcap, window, key_width: 20, ..HEAD }, kind, 600);
            for isa in Isa::available() {
                for (first, rows) in [(0, 1), (31, 3), (530, 1), (250, 40)] {
                    case.check(isa, first, rows, false, TOLERANCE);
                }
            }
        }
    }
}

#[test]
fn bytes_stay_near_what_was_stored() {
    let case = Case::new(Head { key_width: 128, value_width: 128, scale: 0.1, ..HEAD }, KvType::Q8, 500);
    for isa in Isa::available() {
        case.check(isa, 400, 100, true, Q8_TOLERANCE);
    }
}

#[test]
fn a_row_ignores_its_batch() {
    let shapes = [(2, 64, 0.0, 0), (1, 72, 0.0, 40), (7, 20, 2.0, 0), (4, 33, 0.0, 290)];
    for (kind, (group, width, softcap, window)) in KINDS.into_iter().flat_map(|kind| shapes.map(|shape| (kind, shape)))
    {
        let head = Head { key_width: width, value_width: width, group, softcap, window, ..HEAD };
        let case = Case::new(head, kind, 300);
        let mut scratch = AttendScratch::default();
        for isa in Isa::available() {
            let whole = case.run(isa, 230, 70, &mut scratch);
            let alone = (230..300).map(|first| (first, 1));
            let batches = [1, 2, 3, 4, 5, 6, 7, 8, 13, 31, 33, 48, 49, 69].map(|rows| (230, rows));
            for (first, rows) in alone.chain(batches).chain([(241, 40)]) {
                let got = case.run(isa, first, rows, &mut scratch);
                let expected = &whole[(first - 230) * case.row_width()..][..got.len()];
                assert_eq!(bits(&got), bits(expected), "{isa:?} {kind:?} {head:?} {first} {rows}");
            }
        }
    }
}

#[test]
fn segments_merge_to_the_whole() {
    for (kind, window) in KINDS.into_iter().flat_map(|kind| [(kind, 0), (kind, 300)]) {
        let case = Case::new(Head { window, value_width: 75, ..HEAD }, kind, 1100);
        for isa in Isa::available() {
            for (first, rows) in [(0, 1), (255, 1), (256, 1), (1000, 1), (1000, 70), (500, 100)] {
                let whole = case.run(isa, first, rows, &mut AttendScratch::default());
                let split = case.run_split(isa, first, rows);
                assert_eq!(bits(&split), bits(&whole), "{isa:?} {kind:?} {window} {first} {rows}");
            }
        }
    }
}

#[test]
fn unseen_slots_may_hold_anything() {
    // Slots behind the last position hold NaN from the start; here later positions of the block do, too.
    for kind in [KvType::F16, KvType::F32] {
        let (mut spoiled, whole) = (Case::new(HEAD, kind, 300), Case::new(HEAD, kind, 300));
        spoiled.keys[290 * 64..].fill(f32::NAN);
        spoiled.values[290 * 64..].fill(f32::INFINITY);
        (290..300).for_each(|position| spoiled.store(position, position));
        for (isa, (first, rows)) in
            Isa::available().into_iter().flat_map(|isa| [(289, 1), (250, 40)].map(|at| (isa, at)))
        {
            let mut scratch = AttendScratch::default();
            let expected = whole.run(isa, first, rows, &mut scratch);
            assert_eq!(bits(&spoiled.run(isa, first, rows, &mut scratch)), bits(&expected), "{isa:?} {kind:?} {first}");
            // A row that sees them shares tiles with rows that do not.
            let together = spoiled.run(isa, first, 291 - first, &mut scratch);
            assert_eq!(bits(&together[..expected.len()]), bits(&expected), "{isa:?} {kind:?} {first}");
        }
    }
}

#[test]
fn blocks_outside_the_window_are_not_read() {
    for kind in KINDS {
        let mut case = Case::new(Head { window: 40, ..HEAD }, kind, 600);
        for (isa, rows) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 20)]) {
            let whole = case.run(isa, 580, rows, &mut AttendScratch::default());
            let blocks = case.blocks.clone();
            case.blocks[..540 / BLOCK].fill(std::ptr::dangling());
            let got = case.run(isa, 580, rows, &mut AttendScratch::default());
            assert_eq!(bits(&got), bits(&whole), "{isa:?} {kind:?} {rows}");
            case.blocks = blocks;
        }
    }
}

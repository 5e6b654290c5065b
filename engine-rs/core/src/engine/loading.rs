//! From a GGUF file to the parts that the engine runs, and what can be said of the model.

use super::RunOptions;
use super::compute::guarded;
use super::language::Language;
use super::model_language::ModelLanguage;
use crate::error::Result;
use crate::estimate::{Estimate, estimate as estimate_memory};
use crate::executor::{Executor, ExecutorOptions, load_watched};
use crate::gguf::Gguf;
use crate::load_watch::{LoadWatch, Stage};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    pub architecture: String,
    /// Empty where the file has none.
    pub name: String,
    /// Numbers in all tensors.
    pub parameters: u64,
    /// Tokens of the longest sequence, as the engine runs it.
    pub context_length: usize,
    pub vocabulary: usize,
    pub size_bytes: u64,
    /// How most weights are stored, such as `Q4_K_M`.
    pub file_type: String,
    pub has_chat_template: bool,
    /// Its source, the one for requests with tools where there are two; empty where the file has none.
    pub chat_template: String,
    /// Tokens that steer and show nothing, by name.
    pub controls: BTreeMap<String, u32>,
}

pub struct Model {
    pub executor: Box<dyn Executor>,
    pub language: Arc<dyn Language>,
    pub info: ModelInfo,
}

/// Opens a model for generation. `watch` hears how far it is, and may cancel.
///
/// # Errors
/// What the file is refused for, `LoadCancelled`, and `Internal` for a panic on the way: a file must not end the process.
pub fn open(path: &Path, options: &ExecutorOptions, watch: &LoadWatch) -> Result<Model> {
    guarded(|| open_file(path, options, watch))
}

/// The memory that `open` and a run under `run` would take.
///
/// # Errors
/// What the file's header is refused for.
pub fn estimate(path: &Path, options: &ExecutorOptions, run: &RunOptions) -> Result<Estimate> {
    guarded(|| estimate_memory(&Gguf::open(path)?, options, run.max_sequences, run.step_tokens))
}

fn open_file(path: &Path, options: &ExecutorOptions, watch: &LoadWatch) -> Result<Model> {
    watch.enter(Stage::Header)?;
    let gguf = Arc::new(Gguf::open(path)?);
    watch.expect(gguf.tensors().map(|tensor| tensor.data.len() as u64).sum());
    watch.enter(Stage::Vocabulary)?;
    let language = ModelLanguage::open(&gguf)?;
    watch.enter(Stage::Weights)?;
    let executor = load_watched(Arc::clone(&gguf), options, watch)?;
    watch.enter(Stage::Start)?;
    let info = describe(&gguf, &language, executor.context_length())?;
    Ok(Model { executor, language: Arc::new(language), info })
}

fn describe(gguf: &Gguf, language: &ModelLanguage, context_length: usize) -> Result<ModelInfo> {
    Ok(ModelInfo {
        architecture: gguf.architecture()?.to_owned(),
        name: gguf.opt_str("general.name")?.unwrap_or_default().to_owned(),
        parameters: gguf.tensors().map(|tensor| tensor.info.elements() as u64).sum(),
        context_length,
        vocabulary: language.size(),
        size_bytes: gguf.size_bytes() as u64,
        file_type: gguf.opt_u32("general.file_type")?.map_or_else(|| "unknown".to_owned(), file_type),
        has_chat_template: language.has_chat_template(),
        chat_template: language.template_source().unwrap_or_default().to_owned(),
        controls: language.controls().into_iter().filter_map(named).collect(),
    })
}

fn named((token, name): (u32, &[u8])) -> Option<(String, u32)> {
    Some((std::str::from_utf8(name).ok()?.to_owned(), token))
}

/// The names that llama.cpp gives the numbers in `general.file_type`.
fn file_type(number: u32) -> String {
    const NAMES: &[(u32, &str)] = &[
        (0, "F32"),
        (1, "F16"),
        (2, "Q4_0"),
        (3, "Q4_1"),
        (7, "Q8_0"),
        (8, "Q5_0"),
        (9, "Q5_1"),
        (10, "Q2_K"),
        (11, "Q3_K_S"),
        (12, "Q3_K_M"),
        (13, "Q3_K_L"),
        (14, "Q4_K_S"),
        (15, "Q4_K_M"),
        (16, "Q5_K_S"),
        (17, "Q5_K_M"),
        (18, "Q6_K"),
        (21, "Q2_K_S"),
        (25, "IQ4_NL"),
        (30, "IQ4_XS"),
        (32, "BF16"),
        (38, "MXFP4"),
    ];
    let known = NAMES.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| format!("type {number}"), |(_, name)| (*name).to_owned())
}

//! What a decoder is: the numbers and choices that tell one model of the llama family from another, read from the
//! metadata of a GGUF file. Adding an architecture that differs only in these is a line in `ARCHITECTURES`.

use crate::error::{Error, Result};
use crate::gguf::Gguf;

/// Which elements of a head rotate together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeKind {
    /// Neighbours: 0 with 1, 2 with 3 (llama.cpp's NORM).
    Interleaved,
    /// Halves: 0 with n/2, 1 with n/2 + 1 (llama.cpp's NEOX).
    Halves,
}

/// The architectures this decoder computes. The rope kind is not in the file: llama.cpp fixes it for each architecture,
/// and a wrong one fails silently.
const ARCHITECTURES: [(&str, RopeKind); 3] =
    [("llama", RopeKind::Interleaved), ("qwen2", RopeKind::Halves), ("qwen3", RopeKind::Halves)];

#[derive(Debug, Clone, PartialEq)]
pub struct DecoderSpec {
    pub architecture: &'static str,
    pub layers: usize,
    pub width: usize,
    pub feed_forward: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub key_width: usize,
    pub value_width: usize,
    pub norm_epsilon: f32,
    pub context_length: usize,
    pub rope: RopeSpec,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RopeSpec {
    pub kind: RopeKind,
    pub base: f32,
    /// Positions are divided by this (linear scaling).
    pub factor: f32,
}

impl DecoderSpec {
    /// # Errors
    /// `UnsupportedArchitecture`, `UnsupportedModel` where the file asks for what is not computed (experts, other rope
    /// scaling), `MissingKey`, `WrongKind`, or `Malformed` where the numbers contradict each other.
    pub fn read(file: &Gguf) -> Result<DecoderSpec> {
        let name = file.architecture()?;
        let Some((architecture, rope_kind)) = ARCHITECTURES.into_iter().find(|(known, _)| *known == name) else {
            let supported = ARCHITECTURES.map(|(known, _)| known).join(", ");
            return Err(Error::UnsupportedArchitecture { name: name.to_owned(), supported });
        };
        let keys = Keys { file, architecture };
        keys.refuse_experts()?;
        let width = keys.size("embedding_length")?;
        let heads = keys.size("attention.head_count")?;
        let key_width = keys.size_or("attention.key_length", width / heads)?;
        let spec = DecoderSpec {
            architecture,
            layers: keys.size("block_count")?,
            width,
            feed_forward: keys.size("feed_forward_length")?,
            heads,
            kv_heads: keys.size_or("attention.head_count_kv", heads)?,
            key_width,
            value_width: keys.size_or("attention.value_length", width / heads)?,
            norm_epsilon: file.f32(&keys.name("attention.layer_norm_rms_epsilon"))?,
            context_length: keys.size("context_length")?,
            rope: keys.rope(rope_kind)?,
        };
        spec.check(file, keys.size_or("rope.dimension_count", key_width)?)?;
        Ok(spec)
    }

    /// Query heads that share a key-value head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn check(&self, file: &Gguf, rotated: usize) -> Result<()> {
        let DecoderSpec { heads, kv_heads, key_width, norm_epsilon, .. } = self;
        let RopeSpec { base, factor, .. } = self.rope;
        let complaint = if heads % kv_heads != 0 {
            format!("{heads} heads cannot share {kv_heads} key-value heads")
        } else if rotated != *key_width || !rotated.is_multiple_of(2) {
            format!("{rotated} of the {key_width} elements of a head rotate: it should be all, and an even number")
        } else if !(norm_epsilon.is_finite() && *norm_epsilon >= 0.0) {
            format!("{norm_epsilon} is no epsilon for a norm")
        } else if !(base.is_finite() && base > 0.0 && factor.is_finite() && factor > 0.0) {
            format!("rope base {base} with factor {factor}")
        } else {
            return Ok(());
        };
        Err(file.malformed(complaint))
    }
}

/// The keys of one architecture: `{architecture}.{name}`.
struct Keys<'a> {
    file: &'a Gguf,
    architecture: &'static str,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// A size: at least 1.
    fn size(&self, key: &str) -> Result<usize> {
        self.nonzero(key, self.file.u32(&self.name(key))?)
    }

    fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        match self.file.opt_u32(&self.name(key))? {
            Some(size) => self.nonzero(key, size),
            None if default > 0 => Ok(default),
            None => Err(self.file.malformed(format!("`{}` is missing and has no default here", self.name(key)))),
        }
    }

    fn nonzero(&self, key: &str, size: u32) -> Result<usize> {
        match size {
            0 => Err(self.file.malformed(format!("`{}` is 0", self.name(key)))),
            size => Ok(size as usize),
        }
    }

    fn refuse_experts(&self) -> Result<()> {
        match self.file.opt_u32(&self.name("expert_count"))? {
            None | Some(0) => Ok(()),
            Some(experts) => Err(Error::UnsupportedModel {
                what: format!("`{}` is {experts}: mixtures of experts are not computed", self.name("expert_count")),
            }),
        }
    }

    fn rope(&self, kind: RopeKind) -> Result<RopeSpec> {
        let file = self.file;
        // Older files have only `rope.scale_linear`; llama.cpp takes 0 as 1.
        let factor = match file.opt_f32(&self.name("rope.scaling.factor"))? {
            Some(factor) => factor,
            None => file.opt_f32(&self.name("rope.scale_linear"))?.unwrap_or(1.0),
        };
        let factor = if factor == 0.0 { 1.0 } else { factor };
        let factor = match file.opt_str(&self.name("rope.scaling.type"))? {
            None | Some("linear") => factor,
            Some("none") => 1.0,
            Some(other) => {
                return Err(Error::UnsupportedModel { what: format!("rope scaling `{other}` is not computed") });
            }
        };
        Ok(RopeSpec { kind, base: file.opt_f32(&self.name("rope.freq_base"))?.unwrap_or(10_000.0), factor })
    }
}

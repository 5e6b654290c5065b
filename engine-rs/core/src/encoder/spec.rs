//! What an encoder is: the numbers and choices that tell one model of the BERT family from another, read from the
//! metadata of a GGUF file.

use crate::error::{Error, Result};
use crate::gguf::Gguf;

/// The architectures this encoder computes, and whether positions rotate (and the feed-forward part is gated) or are
/// looked up.
const ARCHITECTURES: [(&str, bool); 2] = [("bert", false), ("nomic-bert", true)];

/// How the rows of a text become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    Mean,
    /// The first row, of `[CLS]`.
    First,
    Last,
}

impl Pooling {
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Mean => "mean",
            Pooling::First => "cls",
            Pooling::Last => "last",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct EncoderSpec {
    pub architecture: &'static str,
    pub layers: usize,
    pub width: usize,
    pub feed_forward: usize,
    pub heads: usize,
    pub norm_epsilon: f32,
    pub context_length: usize,
    pub pooling: Pooling,
    /// Base of the rotation; `None` where positions have embeddings.
    pub rope_base: Option<f32>,
}

impl EncoderSpec {
    /// Whether the file holds an encoder, by its architecture.
    pub fn describes(file: &Gguf) -> bool {
        file.architecture().is_ok_and(|name| ARCHITECTURES.iter().any(|(known, _)| *known == name))
    }

    /// # Errors
    /// `UnsupportedArchitecture`, `UnsupportedModel` where the file asks for what is not computed, `MissingKey`,
    /// `WrongKind`, or `Malformed` where the numbers contradict each other.
    pub fn read(file: &Gguf) -> Result<EncoderSpec> {
        let name = file.architecture()?;
        let Some((architecture, rotates)) = ARCHITECTURES.into_iter().find(|(known, _)| *known == name) else {
            let supported = ARCHITECTURES.map(|(known, _)| known).join(", ");
            return Err(Error::UnsupportedArchitecture { name: name.to_owned(), supported });
        };
        let keys = Keys { file, architecture };
        let spec = EncoderSpec {
            architecture,
            layers: keys.size("block_count")?,
            width: keys.size("embedding_length")?,
            feed_forward: keys.size("feed_forward_length")?,
            heads: keys.size("attention.head_count")?,
            norm_epsilon: file.f32(&keys.name("attention.layer_norm_epsilon"))?,
            context_length: keys.size("context_length")?,
            pooling: keys.pooling()?,
            rope_base: if rotates { Some(keys.rope_base()?) } else { None },
        };
        spec.check(file)?;
        Ok(spec)
    }

    pub fn head_width(&self) -> usize {
        self.width / self.heads
    }

    fn check(&self, file: &Gguf) -> Result<()> {
        let EncoderSpec { width, heads, norm_epsilon, .. } = self;
        let complaint = if width % heads != 0 || (self.rope_base.is_some() && !self.head_width().is_multiple_of(2)) {
            format!("{heads} heads cannot share a width of {width}")
        } else if !(norm_epsilon.is_finite() && *norm_epsilon >= 0.0) {
            format!("{norm_epsilon} is no epsilon for a norm")
        } else if self.rope_base.is_some_and(|base| !(base.is_finite() && base > 0.0)) {
            format!("rope base {:?}", self.rope_base)
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

    fn size(&self, key: &str) -> Result<usize> {
        match self.file.u32(&self.name(key))? {
            0 => Err(self.file.malformed(format!("`{}` is 0", self.name(key)))),
            size => Ok(size as usize),
        }
    }

    /// Files that do not say come from models whose authors took the mean, the usual choice.
    fn pooling(&self) -> Result<Pooling> {
        match self.file.opt_u32(&self.name("pooling_type"))? {
            None | Some(1) => Ok(Pooling::Mean),
            Some(2) => Ok(Pooling::First),
            Some(3) => Ok(Pooling::Last),
            Some(0) => Err(self.unsupported("0: one vector for each token, and none for the text")),
            Some(4) => Err(self.unsupported("4: a model that ranks texts and makes no embeddings")),
            Some(other) => Err(self.unsupported(&format!("{other}, which is not known"))),
        }
    }

    fn unsupported(&self, what: &str) -> Error {
        Error::UnsupportedModel { what: format!("`{}` is {what}", self.name("pooling_type")) }
    }

    fn rope_base(&self) -> Result<f32> {
        let kind = self.file.opt_str(&self.name("rope.scaling.type"))?;
        let factor = self.file.opt_f32(&self.name("rope.scaling.factor"))?.unwrap_or(1.0);
        if !matches!(kind, None | Some("none")) && factor != 1.0 {
            let what = format!("rope scaling `{}` of an encoder is not computed", kind.unwrap_or_default());
            return Err(Error::UnsupportedModel { what });
        }
        Ok(self.file.opt_f32(&self.name("rope.freq_base"))?.unwrap_or(10_000.0))
    }
}

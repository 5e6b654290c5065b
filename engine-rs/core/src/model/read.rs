//! Fills a decoder's description from the metadata of a GGUF file, and refuses what would be computed wrongly: a key that
//! asks for something else is an error that names it.

use super::architectures::{ARCHITECTURES, Architecture, Experts, Window};
use super::keys::Keys;
use super::read_rope::read_ropes;
use super::spec::{DecoderSpec, ExpertSpec, LayerSpec, RopeSpec, SharedExpert, Temperature, plain_attention_scale};
use crate::error::{Error, Result};
use crate::gguf::Gguf;

/// More than any model has; a larger count is a damaged file, and must not be allocated for.
const MAX_LAYERS: usize = 4096;
/// `expert_gating_func` of a softmax over all experts.
const SOFTMAX: usize = 1;

impl DecoderSpec {
    /// # Errors
    /// `UnsupportedArchitecture`, `UnsupportedModel` where the file asks for what is not computed, `MissingKey`,
    /// `WrongKind`, or `Malformed` where the numbers contradict each other.
    pub fn read(file: &Gguf) -> Result<DecoderSpec> {
        let name = file.architecture()?;
        let Some(known) = ARCHITECTURES.iter().find(|known| known.name == name) else {
            let supported = ARCHITECTURES.iter().map(|known| known.name).collect::<Vec<_>>().join(", ");
            return Err(Error::UnsupportedArchitecture { name: name.to_owned(), supported });
        };
        let keys = Keys { file, architecture: known.name };
        refuse_unknown(&keys, known)?;
        let shape = Shape::read(&keys)?;
        let windows = read_windows(&keys, known, shape.layers)?;
        let ropes = read_ropes(&keys, known, shape.key_width, shape.context_length)?;
        let experts = read_experts(&keys, known)?;
        let spec = DecoderSpec {
            architecture: known.name,
            layers: shape.layers,
            width: shape.width,
            feed_forward: keys.size_or("feed_forward_length", experts.map_or(0, |experts| experts.feed_forward))?,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            key_width: shape.key_width,
            value_width: shape.value_width,
            norm_epsilon: keys.float("attention.layer_norm_rms_epsilon")?,
            context_length: shape.context_length,
            layer: layers(&keys, known, &windows, &ropes)?,
            ropes,
            activation: known.activation,
            embedding_scale: match known.scaled_embedding {
                true => (shape.width as f32).sqrt(),
                false => multiplier(&keys, known, "embedding_scale")?,
            },
            attention_scale: attention_scale(&keys, known, &shape)?,
            residual_scale: multiplier(&keys, known, "residual_scale")?,
            logit_scale: 1.0 / multiplier(&keys, known, "logit_scale")?,
            attention_softcap: softcap(&keys, "attn_logit_softcapping", known.softcaps.0)?,
            logit_softcap: softcap(&keys, "final_logit_softcapping", known.softcaps.1)?,
            temperature: read_temperature(&keys, known, shape.context_length)?,
            experts,
        };
        spec.check(file)?;
        Ok(spec)
    }

    fn check(&self, file: &Gguf) -> Result<()> {
        let DecoderSpec { heads, kv_heads, key_width, norm_epsilon, .. } = self;
        let rotated = self.ropes[0].rotated;
        let complaint = if heads % kv_heads != 0 {
            format!("{heads} heads cannot share {kv_heads} key-value heads")
        } else if rotated > *key_width || !rotated.is_multiple_of(2) {
            format!("{rotated} of the {key_width} elements of a head rotate: it should be an even number of them")
        } else if *norm_epsilon < 0.0 {
            format!("{norm_epsilon} is no epsilon for a norm")
        } else {
            return Ok(());
        };
        Err(file.malformed(complaint))
    }
}

/// The sizes that others depend on.
struct Shape {
    layers: usize,
    width: usize,
    heads: usize,
    kv_heads: usize,
    key_width: usize,
    value_width: usize,
    context_length: usize,
}

impl Shape {
    fn read(keys: &Keys<'_>) -> Result<Shape> {
        let width = keys.size("embedding_length")?;
        let heads = keys.size("attention.head_count")?;
        let layers = keys.size("block_count")?;
        if layers > MAX_LAYERS {
            return Err(keys.file.malformed(format!("`{}` is {layers}", keys.name("block_count"))));
        }
        let shape = Shape {
            layers,
            width,
            heads,
            kv_heads: keys.size_or("attention.head_count_kv", heads)?,
            key_width: keys.size_or("attention.key_length", width / heads)?,
            value_width: keys.size_or("attention.value_length", width / heads)?,
            context_length: keys.size("context_length")?,
        };
        shape.refuse_second_shape(keys)?;
        Ok(shape)
    }

    /// Layers with a window may have heads of another width in some models.
    fn refuse_second_shape(&self, keys: &Keys<'_>) -> Result<()> {
        let widths = [("attention.key_length_swa", self.key_width), ("attention.value_length_swa", self.value_width)];
        for (key, width) in widths {
            match keys.size_or(key, width)? {
                same if same == width => {}
                other => return Err(keys.unsupported(key, other, "heads of two widths are not computed")),
            }
        }
        Ok(())
    }
}

/// Keys that change what is computed, in ways that no architecture here computes.
fn refuse_unknown(keys: &Keys<'_>, known: &Architecture) -> Result<()> {
    let counts = [
        ("nextn_predict_layers", 0, "layers that predict further tokens are not computed"),
        ("expert_group_count", 1, "groups of experts are not computed"),
        ("leading_dense_block_count", 0, "layers with and without experts in one model are not computed"),
        ("interleave_moe_layer_step", 1, "layers with and without experts in one model are not computed"),
        ("moe_every_n_layers", 1, "layers with and without experts in one model are not computed"),
        ("attention.shared_kv_layers", 0, "layers that share keys and values are not computed"),
    ];
    for (key, allowed, why) in counts {
        let count = keys.count(key)?;
        if count > allowed {
            return Err(keys.unsupported(key, count, why));
        }
    }
    let factors = ["attention.clamp_kqv", "attention.max_alibi_bias", "rope.scaling.alpha"];
    let multipliers = ["embedding_scale", "residual_scale", "logit_scale"];
    for key in factors.into_iter().chain(multipliers.into_iter().filter(|_| !known.multipliers)) {
        let neutral: &[f32] = if multipliers.contains(&key) { &[0.0, 1.0] } else { &[0.0] };
        match keys.opt_float(key)? {
            Some(value) if !neutral.contains(&value) => {
                return Err(keys.unsupported(key, value, &format!("not computed for {}", known.name)));
            }
            _ => {}
        }
    }
    if keys.file.opt_bool(&keys.name("attention.causal"))? == Some(false) {
        return Err(keys.unsupported("attention.causal", false, "only causal attention is computed"));
    }
    if keys.file.get(&keys.name("rope.dimension_sections")).is_some() {
        return Err(keys.unsupported(
            "rope.dimension_sections",
            "set",
            "rotation by several positions is not computed",
        ));
    }
    Ok(())
}

/// Counted in contexts before stretching.
fn read_temperature(keys: &Keys<'_>, known: &Architecture, context: usize) -> Result<Option<Temperature>> {
    let key = "attention.temperature_scale";
    match keys.opt_float(key)? {
        None | Some(0.0) => Ok(None),
        Some(scale) if known.name == "mistral3" => {
            let every = keys.size_or("rope.scaling.original_context_length", context)?;
            Ok(Some(Temperature { scale, every }))
        }
        Some(scale) => Err(keys.unsupported(key, scale, "this architecture has no such temperature")),
    }
}

fn multiplier(keys: &Keys<'_>, known: &Architecture, key: &str) -> Result<f32> {
    if known.multipliers { keys.factor(key) } else { Ok(1.0) }
}

fn attention_scale(keys: &Keys<'_>, known: &Architecture, shape: &Shape) -> Result<f32> {
    let by_width = known.layers_scaled_by_width == Some(shape.layers);
    let divided = if by_width { shape.width / shape.heads } else { shape.key_width };
    Ok(keys.opt_float("attention.scale")?.filter(|scale| *scale != 0.0).unwrap_or(plain_attention_scale(divided)))
}

fn softcap(keys: &Keys<'_>, key: &str, default: Option<f32>) -> Result<f32> {
    match (keys.opt_float(key)?, default) {
        (Some(cap), None) if cap != 0.0 => Err(keys.unsupported(key, cap, "this architecture has no such cap")),
        (Some(cap), _) if cap < 0.0 => Err(keys.file.malformed(format!("`{}` is {cap}", keys.name(key)))),
        (cap, default) => Ok(cap.or(default).unwrap_or(0.0)),
    }
}

/// The window of each layer.
fn read_windows(keys: &Keys<'_>, known: &Architecture, layers: usize) -> Result<Vec<usize>> {
    let key = "attention.sliding_window_pattern";
    let window = keys.file.opt_u32(&keys.name("attention.sliding_window"))?.map(|window| window as usize);
    let (window, pattern) = match known.window {
        Window::Ignored => return Ok(vec![0; layers]),
        Window::All => (window.unwrap_or(0), 0),
        Window::Pattern { pattern, default, .. } => (window.unwrap_or(default), pattern),
    };
    if keys.is_array(key) {
        let windowed = keys.file.flags(&keys.name(key))?;
        if windowed.len() < layers {
            return Err(keys.file.malformed(format!("`{}` has {} of {layers} layers", keys.name(key), windowed.len())));
        }
        return Ok(windowed.into_iter().take(layers).map(|windowed| if windowed { window } else { 0 }).collect());
    }
    let pattern = keys.file.opt_u32(&keys.name(key))?.map_or(pattern, |pattern| pattern as usize);
    let windowed = |layer: usize| pattern == 0 || layer % pattern < pattern - 1;
    Ok((0..layers).map(|layer| if windowed(layer) { window } else { 0 }).collect())
}

fn layers(keys: &Keys<'_>, known: &Architecture, windows: &[usize], ropes: &[RopeSpec]) -> Result<Vec<LayerSpec>> {
    // Granite turns rotation off with a key that says whether it was ever trained.
    let finetuned = keys.file.opt_bool(&keys.name("rope.scaling.finetuned"))?;
    let rotates = !(known.name == "granite" && finetuned == Some(false));
    let every = known.unrotated_every;
    let layer = |(number, window): (usize, &usize)| LayerSpec {
        rope: match rotates && (every == 0 || (number + 1) % every != 0) {
            true => Some(usize::from(*window > 0 && ropes.len() > 1)),
            false => None,
        },
        window: *window,
    };
    Ok(windows.iter().enumerate().map(layer).collect())
}

fn read_experts(keys: &Keys<'_>, known: &Architecture) -> Result<Option<ExpertSpec>> {
    let count = keys.count("expert_count")?;
    let (normalise, shared_gate) = match known.experts {
        Experts::None if count > 0 => {
            return Err(keys.unsupported("expert_count", count, "this architecture has no experts"));
        }
        Experts::None => return Ok(None),
        Experts::Optional if count == 0 => return Ok(None),
        Experts::Optional => (true, false),
        Experts::Always { normalise, shared_gate } => (normalise, shared_gate),
    };
    let count = keys.size("expert_count")?;
    let used = keys.size("expert_used_count")?;
    if used > count {
        return Err(keys.file.malformed(format!("{used} of {count} experts are used")));
    }
    let gating = keys.size_or("expert_gating_func", SOFTMAX)?;
    if gating != SOFTMAX {
        return Err(keys.unsupported("expert_gating_func", gating, "only the softmax over all experts is computed"));
    }
    let width = keys.count("feed_forward_length")?;
    let width = if known.experts == Experts::Optional { width } else { width / used };
    Ok(Some(ExpertSpec {
        count,
        used,
        feed_forward: match known.experts {
            Experts::Optional => keys.size("feed_forward_length")?,
            _ => keys.size_or("expert_feed_forward_length", width)?,
        },
        normalise,
        scale: keys.factor("expert_weights_scale")?,
        shared: shared_expert(keys, shared_gate)?,
    }))
}

fn shared_expert(keys: &Keys<'_>, gated: bool) -> Result<Option<SharedExpert>> {
    let feed_forward = match keys.count("expert_shared_feed_forward_length")? {
        0 if gated => keys.size("feed_forward_length")?,
        feed_forward => feed_forward,
    };
    Ok((feed_forward > 0).then_some(SharedExpert { feed_forward, gated }))
}

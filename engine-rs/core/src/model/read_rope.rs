//! The rotations of a model, from its `rope.*` keys.

use super::architectures::{Architecture, Window};
use super::keys::Keys;
use super::spec::{RopeScaling, RopeSpec};
use crate::error::{Error, Result};

/// One rotation, or two where layers with a window have their own.
pub(super) fn read_ropes(
    keys: &Keys<'_>,
    known: &Architecture,
    key_width: usize,
    context_length: usize,
) -> Result<Vec<RopeSpec>> {
    let rotated = keys.size_or("rope.dimension_count", key_width)?;
    let base = keys.opt_float("rope.freq_base")?.unwrap_or(10_000.0);
    let scaling = read_scaling(keys, known, context_length)?;
    let magnitude = yarn_magnitude(keys, scaling)? * keys.factor("rope.scaling.attn_factor")?;
    let rope = RopeSpec { kind: known.rope, rotated, base, scaling, magnitude };
    check(keys, &rope)?;
    let Window::Pattern { base: own_base, .. } = known.window else { return Ok(vec![rope]) };
    let local_base = keys.opt_float("rope.freq_base_swa")?.or(own_base);
    let local_rotated = keys.size_or("rope.dimension_count_swa", rotated)?;
    if local_rotated != rotated {
        let why = "two counts of rotated elements are not computed";
        return Err(keys.unsupported("rope.dimension_count_swa", local_rotated, why));
    }
    let Some(base) = local_base else { return Ok(vec![rope]) };
    // Only the layers that see everything are stretched, unless the rotation is one for both.
    let scaling = if own_base.is_some() { RopeScaling::None } else { scaling };
    let local = RopeSpec { kind: known.rope, rotated, base, scaling, magnitude: 1.0 };
    check(keys, &local)?;
    Ok(vec![rope, local])
}

fn read_scaling(keys: &Keys<'_>, known: &Architecture, context_length: usize) -> Result<RopeScaling> {
    // Older files have only `rope.scale_linear`; llama.cpp takes 0 as 1.
    let factor = match keys.opt_float("rope.scaling.factor")? {
        Some(0.0) => 1.0,
        Some(factor) => factor,
        None => keys.factor("rope.scale_linear")?,
    };
    let original_context = || keys.size_or("rope.scaling.original_context_length", context_length);
    let kind = keys.file.opt_str(&keys.name("rope.scaling.type"))?;
    // phi3 has its factors as tensors, whether or not a key says so.
    if known.name == "phi3" && keys.file.opt_tensor("rope_factors_long.weight").is_some() {
        return Ok(RopeScaling::Long { factor, original_context: original_context()? });
    }
    Ok(match kind {
        Some("none") => RopeScaling::None,
        None | Some("linear") if factor == 1.0 => RopeScaling::None,
        None | Some("linear") => RopeScaling::Linear { factor },
        Some("longrope") => RopeScaling::Long { factor, original_context: original_context()? },
        Some("yarn") => RopeScaling::Yarn {
            factor,
            original_context: original_context()?,
            beta_fast: keys.opt_float("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
            beta_slow: keys.opt_float("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
            extrapolation: keys.opt_float("rope.scaling.yarn_ext_factor")?.unwrap_or(1.0),
        },
        Some(other) => return Err(Error::UnsupportedModel { what: format!("rope scaling `{other}` is not computed") }),
    })
}

/// YaRN makes attention sharper as the context grows: `0.1 ln(factor) + 1` unless the file has its own number, divided
/// by the same of `yarn_log_multiplier`.
fn yarn_magnitude(keys: &Keys<'_>, scaling: RopeScaling) -> Result<f32> {
    let RopeScaling::Yarn { factor, extrapolation, .. } = scaling else { return Ok(1.0) };
    let own = keys.opt_float("rope.scaling.yarn_attn_factor")?;
    let divisor = keys.opt_float("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0);
    let stretch = |multiplier: f32| if factor <= 1.0 { 1.0 } else { 0.1 * multiplier * factor.ln() + 1.0 };
    Ok(match own {
        Some(own) => own,
        None if extrapolation == 0.0 => 1.0,
        None => stretch(1.0) / stretch(divisor),
    })
}

fn check(keys: &Keys<'_>, rope: &RopeSpec) -> Result<()> {
    let factor = match rope.scaling {
        RopeScaling::None => 1.0,
        RopeScaling::Linear { factor } | RopeScaling::Yarn { factor, .. } | RopeScaling::Long { factor, .. } => factor,
    };
    let positive = |value: f32| value.is_finite() && value > 0.0;
    let complaint = if !(positive(rope.base) && positive(factor)) {
        format!("rope base {} with factor {factor}", rope.base)
    } else if !positive(rope.magnitude) {
        format!("rope magnitude {}", rope.magnitude)
    } else {
        return Ok(());
    };
    Err(keys.file.malformed(complaint))
}

//! What the metadata of each architecture means, where its file does not say so.
#![allow(clippy::unwrap_used, reason = "a test helper may panic as a test may")]

use quiver_core::error::Result;
use quiver_core::gguf::Gguf;
use quiver_core::model::{Activation, DecoderSpec, ExpertSpec, LayerSpec, RopeKind, RopeScaling, SharedExpert};
use quiver_core::testing::{Setting, Tiny, TinyExperts, Writer};

use Setting::{Count, Name, Number};

fn read_bytes(bytes: &[u8]) -> Result<DecoderSpec> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    DecoderSpec::read(&Gguf::open(&path).unwrap())
}

fn read(tiny: &Tiny) -> DecoderSpec {
    read_bytes(&tiny.bytes()).unwrap()
}

fn tiny(architecture: &'static str, keys: &[(&'static str, Setting)]) -> Tiny {
    Tiny { architecture, keys: keys.to_vec(), ..Tiny::default() }
}

fn windows(spec: &DecoderSpec) -> Vec<usize> {
    spec.layer.iter().map(|layer| layer.window).collect()
}

fn ropes(spec: &DecoderSpec) -> Vec<Option<usize>> {
    spec.layer.iter().map(|layer| layer.rope).collect()
}

#[test]
fn rotation_follows_the_name() {
    let halves = ["qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3"];
    for name in halves {
        assert_eq!(read(&tiny(name, &[])).ropes[0].kind, RopeKind::Halves, "{name}");
    }
    for name in ["llama", "mistral3", "smollm3", "granite", "granitemoe"] {
        assert_eq!(read(&tiny(name, &[])).ropes[0].kind, RopeKind::Interleaved, "{name}");
    }
}

#[test]
fn plain_decoders_are_told_apart() {
    for tiny in Tiny::variety() {
        assert!(read(&tiny).is_plain(), "{tiny:?}");
    }
    for tiny in Tiny::features() {
        assert!(!read(&tiny).is_plain(), "{tiny:?}");
    }
}

#[allow(clippy::type_complexity, reason = "a table")]
#[test]
fn windows_follow_the_pattern() {
    let window = ("attention.sliding_window", Count(9));
    let pattern = |every| ("attention.sliding_window_pattern", Count(every));
    let cases: [(&'static str, &[(&'static str, Setting)], [usize; 7]); 8] = [
        ("llama", &[], [0; 7]),
        ("llama", &[window], [9; 7]),
        ("phi3", &[window], [0; 7]),
        ("gemma2", &[], [4096, 0, 4096, 0, 4096, 0, 4096]),
        ("gemma3", &[], [0; 7]),
        ("gemma3", &[window], [9, 9, 9, 9, 9, 0, 9]),
        ("gemma3", &[window, pattern(3)], [9, 9, 0, 9, 9, 0, 9]),
        ("gemma3", &[window, pattern(1)], [0; 7]),
    ];
    for (name, keys, expected) in cases {
        let spec = read(&Tiny { layers: 7, ..tiny(name, keys) });
        assert_eq!(windows(&spec), expected, "{name} {keys:?}");
    }
}

#[test]
fn windows_may_be_listed() {
    let bytes = |flags: &[i32]| {
        let mut writer = tiny("gemma3", &[("attention.sliding_window", Count(9))]).writer();
        writer.i32s("gemma3.attention.sliding_window_pattern", flags).finish()
    };
    assert_eq!(windows(&read_bytes(&bytes(&[0, 1])).unwrap()), [0, 9]);
    let error = read_bytes(&bytes(&[1])).unwrap_err().to_string();
    assert!(error.contains("`gemma3.attention.sliding_window_pattern` has 1 of 2 layers"), "{error}");
}

#[test]
fn some_layers_rotate_differently() {
    let keys = [("attention.sliding_window", Count(9)), ("rope.scaling.factor", Number(8.0))];
    let spec = read(&Tiny { layers: 6, ..tiny("gemma3", &keys) });
    assert_eq!(ropes(&spec), [Some(1), Some(1), Some(1), Some(1), Some(1), Some(0)]);
    let scalings: Vec<_> = spec.ropes.iter().map(|rope| (rope.base, rope.scaling)).collect();
    assert_eq!(scalings, [(10_000.0, RopeScaling::Linear { factor: 8.0 }), (10_000.0, RopeScaling::None)]);
    let spec = read(&Tiny { layers: 5, ..tiny("smollm3", &[]) });
    assert_eq!(ropes(&spec), [Some(0), Some(0), Some(0), None, Some(0)]);
    let mut granite = tiny("granite", &[]).writer();
    granite.bool("granite.rope.scaling.finetuned", false);
    let spec = read_bytes(&granite.finish()).unwrap();
    assert_eq!(spec.layer, [LayerSpec { rope: None, window: 0 }; 2]);
}

#[test]
fn stretched_rotations_are_read() {
    let yarn = |factor: f32, magnitude: f32, extra: &[(&'static str, Setting)]| {
        let mut keys = vec![("rope.scaling.type", Name("yarn")), ("rope.scaling.factor", Number(factor))];
        keys.extend(extra);
        let rope = read(&tiny("mistral3", &keys)).ropes[0].clone();
        assert!((rope.magnitude - magnitude).abs() < 1e-6, "{rope:?} {magnitude}");
        rope.scaling
    };
    // 0.1 ln 4 + 1 = 1.138629; with half of that logarithm 1.069315.
    let (factor, original_context, extrapolation) = (4.0, 256, 1.0);
    let scaling = RopeScaling::Yarn { factor, original_context, beta_fast: 32.0, beta_slow: 1.0, extrapolation };
    assert_eq!(yarn(4.0, 1.138_629_4, &[]), scaling);
    yarn(1.0, 1.0, &[]);
    yarn(4.0, 1.138_629_4 / 1.069_314_7, &[("rope.scaling.yarn_log_multiplier", Number(0.5))]);
    yarn(4.0, 2.0, &[("rope.scaling.yarn_attn_factor", Number(2.0))]);
    yarn(4.0, 1.138_629_4 * 1.5, &[("rope.scaling.attn_factor", Number(1.5))]);

    let keys = [("rope.scaling.original_context_length", Count(64))];
    let divisors = Some("rope_factors_long.weight");
    let rope = read(&Tiny { rotated: Some(12), divisors, ..tiny("phi3", &keys) }).ropes[0].clone();
    assert_eq!((rope.rotated, rope.scaling), (12, RopeScaling::Long { factor: 1.0, original_context: 64 }));
}

#[test]
fn gemma_scales_and_caps() {
    let spec = read(&tiny("gemma2", &[]));
    assert_eq!((spec.activation, spec.embedding_scale), (Activation::Gelu, 8.0));
    assert_eq!((spec.attention_scale, spec.attention_softcap, spec.logit_softcap), (0.25, 50.0, 30.0));
    let spec = read(&tiny("gemma3", &[]));
    assert_eq!((spec.attention_scale, spec.attention_softcap, spec.logit_softcap), (0.25, 0.0, 0.0));
    // Its 27B model alone scales by width / heads: 64 / 4 here, where a key is 64 wide.
    let spec = read(&Tiny { layers: 46, heads: 4, head_width: 64, ..tiny("gemma2", &[]) });
    assert_eq!(spec.attention_scale, 0.25);
}

#[test]
fn granite_multiplies() {
    let keys = [
        ("embedding_scale", Number(12.0)),
        ("residual_scale", Number(0.25)),
        ("attention.scale", Number(0.5)),
        ("logit_scale", Number(8.0)),
    ];
    let spec = read(&tiny("granite", &keys));
    assert_eq!((spec.embedding_scale, spec.residual_scale), (12.0, 0.25));
    assert_eq!((spec.attention_scale, spec.logit_scale), (0.5, 0.125));
}

#[test]
fn queries_grow_with_context() {
    let keys = [("attention.temperature_scale", Number(0.5)), ("rope.scaling.original_context_length", Count(8))];
    let temperature = read(&tiny("mistral3", &keys)).temperature.unwrap();
    // Times 1 + 0.5 ln 1, 1 + 0.5 ln 2 and 1 + 0.5 ln 4.
    for (position, factor) in [(0, 1.0), (7, 1.0), (8, 1.346_573_6), (31, 1.693_147_2)] {
        assert!((temperature.at(position) - factor).abs() < 1e-6, "{position}");
    }
}

#[test]
fn experts_follow_the_name() {
    let experts = TinyExperts { count: 4, used: 2, shared: 0, shared_gate: false };
    let plain = ExpertSpec { count: 4, used: 2, feed_forward: 96, normalise: true, scale: 1.0, shared: None };
    let shared = |feed_forward, gated| Some(SharedExpert { feed_forward, gated });
    let cases = [
        ("llama", 0, plain),
        ("qwen3moe", 0, plain),
        ("granitemoe", 24, ExpertSpec { shared: shared(24, false), ..plain }),
        ("qwen2moe", 24, ExpertSpec { normalise: false, shared: shared(24, true), ..plain }),
        ("qwen2moe", 0, ExpertSpec { normalise: false, shared: shared(96, true), ..plain }),
    ];
    for (name, width, expected) in cases {
        let experts = Some(TinyExperts { shared: width, ..experts });
        assert_eq!(read(&Tiny { experts, ..tiny(name, &[]) }).experts, Some(expected), "{name}");
    }
    assert_eq!(read(&tiny("llama", &[])).experts, None);
}

#[allow(clippy::type_complexity, reason = "a table")]
#[test]
fn what_is_not_computed_is_named() {
    let text = |key, value| (key, Name(value));
    let cases: Vec<(&'static str, Vec<(&'static str, Setting)>, &str)> = vec![
        ("llama", vec![("attention.temperature_scale", Number(0.1))], "`llama.attention.temperature_scale` is 0.1"),
        ("llama", vec![("logit_scale", Number(8.0))], "`llama.logit_scale` is 8: not computed for llama"),
        ("llama", vec![("attn_logit_softcapping", Number(9.0))], "`llama.attn_logit_softcapping` is 9"),
        ("gemma2", vec![("attn_logit_softcapping", Number(-9.0))], "`gemma2.attn_logit_softcapping` is -9"),
        ("llama", vec![("nextn_predict_layers", Count(1))], "`llama.nextn_predict_layers` is 1"),
        ("qwen2", vec![("expert_count", Count(4))], "`qwen2.expert_count` is 4: this architecture has no experts"),
        ("llama", vec![("expert_count", Count(2)), ("expert_used_count", Count(3))], "3 of 2 experts are used"),
        (
            "llama",
            vec![("expert_count", Count(4)), ("expert_used_count", Count(2)), ("expert_gating_func", Count(2))],
            "`llama.expert_gating_func` is 2",
        ),
        ("gemma3", vec![("attention.key_length_swa", Count(8))], "`gemma3.attention.key_length_swa` is 8"),
        ("gemma3", vec![("rope.dimension_count_swa", Count(8))], "`gemma3.rope.dimension_count_swa` is 8"),
        ("llama", vec![text("rope.scaling.type", "ntk")], "rope scaling `ntk` is not computed"),
        ("granite", vec![("logit_scale", Number(f32::NAN))], "`granite.logit_scale` is NaN"),
        ("llama", vec![("rope.scaling.attn_factor", Number(-1.0))], "rope magnitude -1"),
    ];
    for (name, keys, expected) in cases {
        let error = read_bytes(&tiny(name, &keys).bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "wanted {expected}, got {error}");
    }
}

#[test]
fn flags_that_change_everything_are_named() {
    let with = |change: &dyn Fn(&mut Writer)| {
        let mut writer = Tiny::default().writer();
        change(&mut writer);
        read_bytes(&writer.finish()).unwrap_err().to_string()
    };
    let error = with(&|writer| {
        writer.bool("llama.attention.causal", false);
    });
    assert!(error.contains("`llama.attention.causal` is false"), "{error}");
    let error = with(&|writer| {
        writer.i32s("llama.rope.dimension_sections", &[1, 2, 3]);
    });
    assert!(error.contains("`llama.rope.dimension_sections` is set"), "{error}");
}

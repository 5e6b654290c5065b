"""What the gateway asks of the built-in engine: one struct, encoded as JSON and decoded by the Rust side.

Field names and defaults equal those of the engine's own request type; a field it does not know is an error there.
"""

import msgspec


class Prompt(msgspec.Struct, frozen=True, omit_defaults=True):
    """Exactly one of the three: chat messages for the model's template, plain text, or token ids."""

    messages: list[dict[str, object]] | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET
    tokens: list[int] | msgspec.UnsetType = msgspec.UNSET


class GenerateRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One sequence to generate. Ranges are checked by the engine, which names the field at fault.

    `scope`: the engine reuses what it computed for one request only in others of the same scope. `priority`: higher goes
    first (-100 to 100). `deadline_ms`: fail if generation has not begun so long after submission. `speculate`: guess tokens
    from the text before; changes how soon they come, never which.
    """

    prompt: Prompt
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[str, float] = {}
    stop: list[str] = []
    logprobs: int | None = None
    scope: str = ""
    priority: int = 0
    deadline_ms: int | None = None
    speculate: bool | None = None

"""What the gateway asks of the built-in engine: one struct, encoded as JSON and decoded by the Rust side.

Field names and defaults equal those of the engine's own request type; a field it does not know is an error there.
"""

import msgspec


class Prompt(msgspec.Struct, frozen=True, omit_defaults=True):
    """Exactly one of the three: chat messages for the model's template, plain text, or token ids."""

    messages: list[dict[str, object]] | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET
    tokens: list[int] | msgspec.UnsetType = msgspec.UNSET


class Schema(msgspec.Struct, frozen=True, omit_defaults=True):
    """A JSON schema. `strict`: what cannot be enforced is refused, not left out."""

    json: object
    strict: bool = False


class Grammar(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an answer must follow: exactly one of `json`, `regex`, `choice` and `lark`.

    `field`: the client's field it comes from, named when it is refused. `schemas`: those that `lark` refers to as `@name`.
    """

    field: str
    json: object = msgspec.UNSET
    strict: bool = False
    regex: str | msgspec.UnsetType = msgspec.UNSET
    choice: list[str] | msgspec.UnsetType = msgspec.UNSET
    lark: str | msgspec.UnsetType = msgspec.UNSET
    schemas: dict[str, Schema] | msgspec.UnsetType = msgspec.UNSET


class GenerateRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One sequence to generate. Ranges are checked by the engine, which names the field at fault.

    `template_arguments`: further variables for the chat template. `reasoning`: the marks around the model's reasoning, after
    which the `grammar` begins. `shown`: control tokens whose names show in the text. `scope`: the engine reuses what it
    computed for one request only in others of the same scope. `priority`: higher goes first (-100 to 100). `deadline_ms`:
    fail if generation has not begun so long after submission. `speculate`: guess tokens from the text before; changes how
    soon they come, never which.
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
    template_arguments: dict[str, object] = {}
    grammar: Grammar | None = None
    reasoning: tuple[str, str] | None = None
    shown: list[int] = []

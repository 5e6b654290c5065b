"""Whether a model fits into memory, said before it is loaded: a machine that swaps, or kills the process, serves nobody."""

from collections.abc import Callable, Sequence

import msgspec
from quiver.schemas import errors
from quiver.schemas.errors import ApiError
from quiver.schemas.models import MemoryReport
from quiver.schemas.sizes import size


class Claim(msgspec.Struct, frozen=True):
    """Memory of a model that runs or loads: all it may take, and what of that it has not taken yet."""

    total: int
    open: int


class Budget:
    """The memory that models share. `limit`: the operator's word, which counts instead of what the machine says; `claims`:
    those of all models, at this moment.
    """

    def __init__(self, limit: int | None, claims: Callable[[], Sequence[Claim]]) -> None:
        self.limit, self._claims = limit, claims

    def __repr__(self) -> str:
        return f"<Budget: {'the machine' if self.limit is None else size(self.limit)}, {len(self._claims())} claims>"

    def left(self, available: int | None) -> int | None:
        """Bytes for a further model, when the machine has `available` free; None when nobody knows."""
        if self.limit is not None:
            return max(0, self.limit - sum(claim.total for claim in self._claims()))
        if available is None:
            return None
        return max(0, available - sum(claim.open for claim in self._claims()))

    def admit(self, memory: MemoryReport, available: int | None, *, beside: bool) -> None:
        """Raises `ApiError` (507) when a model of this size does not fit. `beside`: another one makes way for it later."""
        left = self.left(available)
        if left is not None and memory.total > left:
            raise ApiError(errors.INSUFFICIENT_MEMORY, refusal(memory, left, beside=beside))


def refusal(memory: MemoryReport, left: int, *, beside: bool) -> str:
    """What is needed, what there is, and what can be done."""
    parts = f"{size(memory.weights)} weights, {size(memory.kv)} keys and values of {memory.kv_tokens} tokens"
    advice = [
        'unload the one it replaces first (`replace: "unload_first"`)' if beside else "unload another model",
        "lower `context_length` or `max_sequences`",
        "raise `engine.memory_limit`",
        "load it all the same with `force`",
    ]
    return (
        f"The model needs {size(memory.total)} of memory ({parts}, {size(memory.scratch)} working space) and "
        f"{size(left)} are left; {', '.join(advice[:-1])}, or {advice[-1]}"
    )

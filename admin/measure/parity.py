"""Do both engines compute the same? Asked before any speed is told: a wrong answer is quicker than a right one."""

import tempfile
from pathlib import Path

import msgspec
from quiver.proxy.native import evaluate

from .llama import Llama
from .plan import tokens
from .quiver_engine import QuiverEngine

POSITIONS, ANSWER = 48, 24
# Weights are the same; what differs is how activations are rounded for each block type.
NMSE = 1e-3
# With random weights the two likeliest tokens are often all but equally likely. In standard deviations of the logits; errors
# of `NMSE` are 0.03 each.
SHORTFALL = 0.2


class Parity(msgspec.Struct, frozen=True):
    """`nmse`: mean squared difference of the logits over `positions`, relative to llama.cpp's mean square; `top`: share of
    positions with the same likeliest token. Of `tokens` that the engine generated `same` is the share that llama.cpp finds
    likeliest at their place, and `shortfall` the most that one is behind it, in standard deviations of the logits.
    """

    positions: int
    nmse: float
    top: float
    tokens: int
    same: float
    shortfall: float

    @property
    def complaint(self) -> str | None:
        """Why no speed is told."""
        if not self.nmse <= NMSE:
            return f"the logits differ from llama.cpp's: NMSE {self.nmse:.1e}, more than {NMSE:.0e}"
        if not self.shortfall <= SHORTFALL:
            return (
                f"the tokens differ from llama.cpp's: one is {self.shortfall:.2f} standard deviations behind its choice"
            )
        return None


def check(model: str, ours: QuiverEngine, peer: Llama, vocabulary: int) -> Parity:
    """Compare the logits of one prompt, then a greedy answer of the running engine."""
    prompt = tokens(POSITIONS, 1, vocabulary)
    with tempfile.TemporaryDirectory(prefix="quiver-") as folder:
        logits = Path(folder) / "logits"
        logits.write_bytes(evaluate(model, prompt, kv_type="f16"))
        apart = peer.ask("compare", tokens=prompt, file=str(logits))
    answer = ours.answer(prompt, ANSWER)
    behind = peer.ask("shortfall", prompt=prompt, answer=answer)
    return Parity(POSITIONS, apart["nmse"], apart["top"], len(answer), behind["same"], behind["worst"])

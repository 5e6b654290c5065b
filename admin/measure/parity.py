"""Do both engines compute the same? Asked before any speed is told: a wrong answer is quicker than a right one."""

import tempfile
from pathlib import Path

import msgspec
from quiver.proxy.native import evaluate

from .llama import Llama
from .plan import tokens
from .quiver_engine import QuiverEngine

POSITIONS, ANSWER = 48, 24
# Weights are the same; what differs is the order of additions, and so how activations are rounded to 8 bits. That adds up
# over layers: llama.cpp's two kinds of attention are 1.3e-3 apart for 28 layers of Q4_K_M with random weights. So we may be
# twice as far from the one as the other is, within reason.
NMSE, WORST_NMSE = 1e-3, 1e-2
# With random weights the two likeliest tokens are often all but equally likely. In standard deviations of the logits; errors
# of `NMSE` are 0.03 each.
SHORTFALL = 0.2


class Parity(msgspec.Struct, frozen=True):
    """`nmse`: mean squared difference of the logits over `positions`, relative to llama.cpp's mean square; `top`: share of
    positions with the same likeliest token. Of `tokens` that the engine generated `same` is the share that llama.cpp finds
    likeliest at their place, and `shortfall` the most that one is behind it, in standard deviations of the logits. `own`: the
    `nmse` of llama.cpp's logits with flash attention.
    """

    positions: int
    nmse: float
    top: float
    tokens: int
    same: float
    shortfall: float
    own: float = 0.0

    @property
    def limit(self) -> float:
        """The most that `nmse` may be."""
        return max(NMSE, min(2 * self.own, WORST_NMSE))

    @property
    def complaint(self) -> str | None:
        """Why no speed is told."""
        if not self.nmse <= self.limit:
            return f"the logits differ from llama.cpp's: NMSE {self.nmse:.1e}, more than {self.limit:.1e}"
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
    return Parity(POSITIONS, apart["nmse"], apart["top"], len(answer), behind["same"], behind["worst"], apart["own"])

"""One whole run: load the model, check the answers, measure, report."""

import os
from collections.abc import Callable
from contextlib import ExitStack

from quiver.proxy.local.backend import BOLT
from quiver.proxy.native import Engine

from .conditions import conditions
from .llama import open_llama
from .parity import check
from .plan import Plan
from .quiver_engine import QuiverEngine
from .rounds import measure
from .tables import Report


class WrongAnswers(RuntimeError):
    """The engines do not compute the same. The message says by how much."""


def run(plan: Plan, model: str | None, threads: int, oracle: str | None, tell: Callable[[str], object]) -> Report:
    """Measure `model` (None: the built-in one) as `plan` says, next to the llama.cpp that the interpreter `oracle` has
    unless that is None. `tell` gets a line before each case.

    Error handling: raises `EngineError` or `EngineFailed` when the model cannot be run, `PeerFailed` when llama.cpp cannot,
    and `WrongAnswers` when the two do not agree.
    """
    path, threads = model or BOLT.path, threads or os.cpu_count() or 1
    with ExitStack() as opened:
        engine = Engine(path, threads=threads, max_sequences=max(16, *plan.streams))
        opened.callback(engine.close)
        info, ours = engine.info, QuiverEngine(engine)
        holds_for = conditions(path, info, threads)
        peer, parity = None, None
        if oracle is not None:
            peer = opened.enter_context(open_llama(oracle, path, threads))
            holds_for |= {"llama-cpp-python": peer.versions["llama-cpp-python"]}
            tell("checking that both compute the same")
            parity = check(path, ours, peer, info.vocabulary)
            if parity.complaint:
                raise WrongAnswers(parity.complaint)
        cases, left_out = plan.cases(info.context_length)
        results = list(measure(ours, peer, cases, plan.repeats, info.vocabulary, tell))
    return Report(holds_for, results, parity, [case.name for case in left_out])

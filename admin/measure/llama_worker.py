"""llama.cpp as the peer of a comparison, in a process of its own: `PYTHON llama_worker.py MODEL THREADS`.

Runs in any environment that has llama-cpp-python; nothing of ours is imported. One command of JSON per line comes in, one
answer per line goes out. Batches are made as llama.cpp's server makes them: tokens of running streams first, then as much of
a prompt as fits into `n_batch`. Only `llama_decode` and the wait for its end are timed, no sampling, nothing of Python.
"""

import ctypes
import json
import os
import sys
import time
from typing import Any

try:
    import llama_cpp
    import numpy as np
    from llama_cpp import llama_cpp as llama
except ImportError as missing:
    print(json.dumps({"error": f"{sys.executable} has no llama-cpp-python: {missing}"}))
    sys.exit(1)

# The server's defaults.
BATCH, MICRO_BATCH = 2048, 512


class Context:
    """A context and what its sequences hold. `flash`: flash attention; `unified`: one cache for all sequences."""

    def __init__(self, model: Any, threads: int, context: int, sequences: int, flash: bool, unified: bool) -> None:
        options = llama.llama_context_default_params()
        options.n_ctx, options.n_seq_max = context * sequences, sequences
        options.n_batch, options.n_ubatch = BATCH, MICRO_BATCH
        options.n_threads = options.n_threads_batch = threads
        options.flash_attn_type = int(flash)
        options.kv_unified = unified
        options.no_perf = True
        self.handle = llama.llama_init_from_model(model, options)
        if not self.handle:
            raise RuntimeError("llama.cpp cannot make a context of this size")
        self.memory = llama.llama_get_memory(self.handle)
        self.batch = llama.llama_batch_init(BATCH, 0, 1)
        self.vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
        self.held: dict[int, list[int]] = {}

    def close(self) -> None:
        llama.llama_batch_free(self.batch)
        llama.llama_free(self.handle)

    def step(self, rows: list[tuple[int, int, int, bool]]) -> float:
        """Compute rows of (sequence, position, token, wants logits); the seconds it took."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for index, (sequence, position, token, wanted) in enumerate(rows):
            batch.token[index], batch.pos[index] = token, position
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, sequence
            batch.logits[index] = wanted
        began = time.perf_counter()
        code = llama.llama_decode(self.handle, batch)
        llama.llama_synchronize(self.handle)
        seconds = time.perf_counter() - began
        if code:
            raise RuntimeError(f"llama_decode failed with code {code}")
        return seconds

    def scores(self, index: int) -> Any:
        """The logits of row `index` of the last step."""
        start = ctypes.cast(llama.llama_get_logits_ith(self.handle, index), ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(start, (self.vocabulary,))

    def likeliest(self, index: int) -> int:
        return int(self.scores(index).argmax())

    def clear(self) -> None:
        llama.llama_memory_clear(self.memory, True)
        self.held.clear()

    def read(self, sequence: int, tokens: list[int]) -> tuple[int, float]:
        """Compute a prompt; its next token and the seconds. What the sequence holds of it is not computed again."""
        if self.held.get(sequence) == tokens:
            llama.llama_memory_seq_rm(self.memory, sequence, len(tokens) - 1, -1)
            first = len(tokens) - 1
        else:
            llama.llama_memory_seq_rm(self.memory, sequence, -1, -1)
            first = 0
        seconds = 0.0
        for start in range(first, len(tokens), BATCH):
            part = tokens[start : start + BATCH]
            rows = [(sequence, start + at, token, start + at == len(tokens) - 1) for at, token in enumerate(part)]
            seconds += self.step(rows)
        self.held[sequence] = tokens
        return self.likeliest(len(part) - 1), seconds


class Peer:
    """A loaded model and its contexts. Every public method is a command."""

    def __init__(self, path: str, threads: int) -> None:
        llama.llama_backend_init()
        self._model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        self._threads = threads
        self._contexts: dict[str, Context] = {}

    def version(self) -> dict[str, str]:
        info = llama.llama_print_system_info().decode()
        return {"llama-cpp-python": llama_cpp.__version__, "llama.cpp": info}

    def open(self, name: str, context: int, sequences: int, flash: bool, unified: bool) -> None:
        self._contexts[name] = Context(self._model, self._threads, context, sequences, flash, unified)

    def close(self, name: str) -> None:
        self._contexts.pop(name).close()

    def prefill(self, name: str, tokens: list[int]) -> float:
        """Seconds for a prompt that nothing is known of."""
        context = self._contexts[name]
        context.clear()
        return context.read(0, tokens)[1]

    def decode(self, name: str, prompts: list[list[int]], generate: int) -> list[float]:
        """Seconds of each step in which every stream gets a token; the prompts before them do not count."""
        context = self._contexts[name]
        newest = [context.read(sequence, prompt)[0] for sequence, prompt in enumerate(prompts)]
        seconds = []
        for made in range(generate - 1):
            rows = [(at, len(prompt) + made, newest[at], True) for at, prompt in enumerate(prompts)]
            seconds.append(context.step(rows))
            newest = [context.likeliest(at) for at in range(len(prompts))]
        for sequence, prompt in enumerate(prompts):
            llama.llama_memory_seq_rm(context.memory, sequence, len(prompt), -1)
        return seconds

    def intrude(self, name: str, prompt: list[int], newcomer: list[int], generate: int) -> dict[str, Any]:
        """One stream runs, a prompt comes in: the gaps of the stream until the newcomer's first token."""
        context = self._contexts[name]
        context.clear()
        newest, _ = context.read(0, prompt)
        position, rest, gaps = len(prompt), list(enumerate(newcomer)), []
        for _ in range(generate // 2):
            context.step([(0, position, newest, True)])
            newest, position = context.likeliest(0), position + 1
        while rest:
            taken, rest = rest[: BATCH - 1], rest[BATCH - 1 :]
            prompts = [(1, at, token, at == len(newcomer) - 1) for at, token in taken]
            gaps.append(context.step([(0, position, newest, True), *prompts]))
            newest, position = context.likeliest(0), position + 1
        return {"gaps": gaps, "first": sum(gaps)}

    def compare(self, tokens: list[int], file: str) -> dict[str, float]:
        """How far the logits in `file` (native f32, every position) are from those computed here; `own`: how far those are from
        what is computed here with flash attention.
        """
        ours = np.fromfile(file, np.float32).reshape(len(tokens), -1).astype(np.float64)
        theirs = self._logits(tokens).astype(np.float64)
        if ours.shape != theirs.shape:
            raise RuntimeError(f"the logits are {ours.shape}, llama.cpp's {theirs.shape}")
        flash = self._logits(tokens, flash=True).astype(np.float64)
        wrong, own = (float(((logits - theirs) ** 2).sum() / (theirs**2).sum()) for logits in (ours, flash))
        return {"nmse": wrong, "own": own, "top": float((ours.argmax(1) == theirs.argmax(1)).mean())}

    def shortfall(self, prompt: list[int], answer: list[int]) -> dict[str, float]:
        """How much less likely than the best an answer's tokens are, in standard deviations of the logits: the worst of them,
        and the share of those that are the best.
        """
        logits = self._logits(prompt + answer)[len(prompt) - 1 : -1].astype(np.float64)
        taken = logits[np.arange(len(answer)), answer]
        behind = (logits.max(1) - taken) / logits.std(1)
        return {"worst": float(behind.max()), "same": float((behind == 0).mean())}

    def _logits(self, tokens: list[int], flash: bool = False) -> Any:
        """At every position. Keys and values are kept as f16, as they are when serving."""
        context = Context(self._model, self._threads, max(256, len(tokens)), 1, flash, unified=True)
        try:
            context.step([(0, at, token, True) for at, token in enumerate(tokens)])
            return np.stack([context.scores(at) for at in range(len(tokens))])
        finally:
            context.close()


@llama.llama_log_callback  # type: ignore[untyped-decorator]  # llama_cpp has no types here
def _silent(level: int, text: bytes, data: Any) -> None: ...


def main() -> None:
    # What the library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    llama.llama_log_set(_silent, ctypes.c_void_p(0))
    try:
        peer = Peer(sys.argv[1], int(sys.argv[2]))
        print(json.dumps({"result": peer.version()}), file=answers, flush=True)
        for line in sys.stdin:
            command, arguments = json.loads(line)
            print(json.dumps({"result": getattr(peer, command)(**arguments)}), file=answers, flush=True)
    except RuntimeError as error:
        print(json.dumps({"error": str(error)}), file=answers, flush=True)


if __name__ == "__main__":
    main()

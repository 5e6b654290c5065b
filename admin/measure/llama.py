"""llama.cpp as a contender: a worker process in an environment that has llama-cpp-python, asked over its pipes."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from .contender import Sample
from .plan import Case

WORKER = Path(__file__).with_name("llama_worker.py")
STOP_SECONDS = 10


class PeerFailed(RuntimeError):
    """llama.cpp is not there, or cannot do what it is asked. The message says which."""


class Setting(msgspec.Struct, frozen=True):
    """How llama.cpp is run. It has no setting that is best for everything, so each case is measured with several.
    `flash`: flash attention; `unified`: one cache for all sequences, as its server has it.
    """

    flash: bool
    unified: bool = True

    @property
    def name(self) -> str:
        return f"fa={int(self.flash)}" + ("" if self.unified else ", split cache")


def settings(case: Case) -> list[Setting]:
    """Those that may be the best one for `case`."""
    alone = [Setting(flash) for flash in (False, True)]
    return alone + [Setting(flash, unified=False) for flash in (False, True)] if case.streams > 1 else alone


class Llama:
    """The worker. `open_llama` makes one."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.versions: dict[str, str] = self._answer()

    def ask(self, command: str, **arguments: object) -> Any:
        """The result of one command. Raises `PeerFailed`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([command, arguments]) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer, or its absence, says why
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PeerFailed(f"the llama.cpp process ended with code {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerFailed(answer["error"])
        return answer["result"]

    @contextmanager
    def opened(self, case: Case, setting: Setting) -> Iterator["LlamaContext"]:
        """A context that has room for `case`."""
        sequences = case.streams + (case.kind == "pause")
        flags = {"flash": setting.flash, "unified": setting.unified}
        self.ask("open", name=setting.name, context=case.context, sequences=sequences, **flags)
        try:
            yield LlamaContext(self, setting.name)
        finally:
            self.ask("close", name=setting.name)


class LlamaContext:
    """llama.cpp with one setting, as a contender."""

    def __init__(self, llama: Llama, name: str) -> None:
        self._llama, self._name = llama, name

    def prefill(self, prompt: list[int]) -> float:
        return float(self._llama.ask("prefill", name=self._name, tokens=prompt))

    def decode(self, prompts: list[list[int]], generate: int) -> Sample:
        seconds = self._llama.ask("decode", name=self._name, prompts=prompts, generate=generate)
        return Sample(seconds, len(prompts) * len(seconds) / sum(seconds))

    def intrude(self, prompt: list[int], newcomer: list[int], generate: int) -> Sample:
        told = self._llama.ask("intrude", name=self._name, prompt=prompt, newcomer=newcomer, generate=generate)
        return Sample(told["gaps"], len(newcomer) / told["first"], told["first"])


@contextmanager
def open_llama(python: str, model: str, threads: int) -> Iterator[Llama]:
    """llama.cpp in a process of the interpreter `python`, with `model` loaded. Raises `PeerFailed`."""
    command = [python, str(WORKER), model, str(threads)]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    except OSError as error:
        raise PeerFailed(f"`{python}` cannot be run: {error.strerror}") from error
    try:
        yield Llama(process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

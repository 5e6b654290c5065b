"""A worker that answers like `llama_worker.py` without llama.cpp: `PYTHON fake_llama.py MODEL THREADS`. Steps take as long as
the setting says, and `MODEL` says how wrong the logits are.
"""

import json
import sys

NMSE = {"right": 1e-5, "wrong": 1e-2, "unknown": float("nan")}
# Seconds by setting: flash attention is better for prompts, and worse for all else.
STEPS = {"fa=0": 0.25, "fa=1": 0.5, "fa=0, split cache": 0.125, "fa=1, split cache": 1.0}


def answer(command: str, told: dict[str, object]) -> object:
    name = str(told.get("name"))
    match command:
        case "prefill":
            return 2.0 if name == "fa=0" else 1.0
        case "decode":
            return [STEPS[name]] * 4
        case "intrude":
            return {"gaps": [4 * STEPS[name]], "first": 4 * STEPS[name]}
        case "compare":
            return {"nmse": NMSE[sys.argv[1]], "top": 1.0, "own": 1e-5}
        case "shortfall":
            return {"worst": 0.01, "same": 0.9}
        case "fail":
            raise RuntimeError("out of memory")
        case "die":
            sys.exit(3)
    return None


def say(**said: object) -> None:
    print(json.dumps(said), flush=True)


say(result={"llama-cpp-python": "1.2.3"})
try:
    for line in sys.stdin:
        say(result=answer(*json.loads(line)))
except RuntimeError as error:
    say(error=str(error))

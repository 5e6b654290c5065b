"""Everything in order: corpus, vocabulary, training, export, evaluation. Run from the root: `python -m bolt.make`."""

from __future__ import annotations

import argparse
import sys
import time

from bolt import corpus, evaluate, export, model, tokenizer, train

VOCABULARY = 2048
STEPS = 1500


def main() -> None:
    """Command line; the defaults are the recipe of the shipped file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    began = time.monotonic()
    data = corpus.load()
    words = tokenizer.train(data, VOCABULARY, seed=1)
    evaluate.VOCABULARY.parent.mkdir(exist_ok=True)
    words.save(str(evaluate.VOCABULARY))
    shape = model.Shape(vocabulary=words.get_vocab_size())
    parameters = train.train(shape, data, words, train.Plan(steps=options.steps))
    print(f"{model.count(parameters)} weights, {(time.monotonic() - began) / 60:.1f} minutes")
    export.write(evaluate.FILE, shape, parameters, words)
    sys.argv = sys.argv[:1]
    evaluate.main()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Every logit of the tiny checkpoints (tests/vectors/tiny.py): marco score --compute f32 against
transformers on the same folder.

    python logits.py [CASE ...]
"""

import os
import sys
import tempfile

import torch
import transformers

import results

VECTORS = os.path.join(results.REPOSITORY, "tests", "vectors")
sys.path.insert(0, VECTORS)
import make_logits  # noqa: E402
import tiny  # noqa: E402

BAR = 1e-3  # of the logits' standard deviation


def table(rows, vocab):
    """Rows of (id, log-probability), each a whole vocabulary, as a tensor."""
    out = torch.full((len(rows), vocab), float("nan"), dtype=torch.float64)
    for position, pairs in enumerate(rows):
        ids, logprobs = zip(*pairs)
        out[position, list(ids)] = torch.tensor(logprobs, dtype=torch.float64)
    return out


@torch.no_grad()
def compare(path):
    name, seed, config = tiny.read_vector(path)
    vocab, largest, differ, positions = config["vocab_size"], 0.0, 0, 0
    ids = tiny.random_below(seed, "ids", sum(make_logits.LENGTHS), vocab)
    with tempfile.TemporaryDirectory() as folder:
        tiny.write_checkpoint(folder, config, seed)
        model = make_logits.load(folder)
        for length in make_logits.LENGTHS:
            sequence, ids = ids[:length], ids[length:]
            theirs = model(torch.tensor([sequence]), use_cache=False).logits[0].double()
            seen, rows = results.score(folder, vocab, ids=sequence)
            assert seen == sequence
            ours = table(rows, vocab)
            difference = (ours - theirs.log_softmax(-1)).abs().max() / theirs.std()
            # NaN, an id that marco left out, must count as a difference.
            largest = max(largest, difference.nan_to_num(float("inf")).item())
            differ += int((ours.argmax(-1) != theirs.argmax(-1)).sum())
            positions += length
    results.row(
        f"all log-probabilities of {name}",
        f"within {BAR:g} of the logits' deviation, same likeliest id",
        f"{largest:.1e}, {differ} of {positions} likeliest ids differ",
        largest <= BAR and differ == 0,
    )


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = os.path.join(VECTORS, "logits")
    for name in sys.argv[1:] or make_logits.CASES:
        compare(os.path.join(folder, f"{name}.txt"))
    results.finish()


if __name__ == "__main__":
    main()

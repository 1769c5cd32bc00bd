#!/usr/bin/env python3
"""Speed of `marco tokenize` against HF's tokenizers on one thread, in turn, on the same lines.

    python speed.py

marco's time is that of the whole process: starting, loading the tokenizer, reading the lines and
printing the ids. HF's is that of encode() in a loop and of encode_batch_fast(), the tokenizer loaded
before. Qwen3's tokenizer is used where MARCO_TEST_DATA names a folder with it, the small one of
tests/vectors/tokens otherwise; the lines are those of tokens.py, unchanged.
"""

import os
import statistics
import subprocess
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import Tokenizer  # noqa: E402  (reads the environment when imported)

import results  # noqa: E402
import tokens  # noqa: E402

ROUNDS = 5
BYTES = 8_000_000


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main():
    path = tokens.VECTORS / "tokens" / "small" / "tokenizer.json"
    if tokens.DATA:
        path = os.path.join(tokens.DATA, "qwen3-tokenizer", "tokenizer.json")
    reference = Tokenizer.from_file(str(path))
    lines = [text for _, text in tokens.real_lines() if text and "\n" not in text]
    size = sum(len(line.encode()) for line in lines)
    lines *= max(1, BYTES // size)
    data = ("\n".join(lines) + "\n").encode()

    def marco():
        subprocess.run([results.MARCO, "tokenize", "-m", str(path)], input=data,
                       stdout=subprocess.DEVNULL, check=True)  # fmt: skip

    def loop():
        for line in lines:
            reference.encode(line, add_special_tokens=False)

    def batch():
        reference.encode_batch_fast(lines, add_special_tokens=False)

    times = {name: [] for name in ("marco", "loop", "batch")}
    for _ in range(ROUNDS):
        for work in (marco, loop, batch):
            times[work.__name__].append(seconds(work))
    for name, what in (("loop", "encode() in a loop"), ("batch", "encode_batch_fast()")):
        ratios = [hf / ours for hf, ours in zip(times[name], times["marco"], strict=True)]
        speed = len(data) / 1e6 / statistics.median(times["marco"])
        ratio = statistics.median(ratios)
        results.row(
            f"speed of tokenize, whole process, {len(data) / 1e6:.1f} MB, against HF's {what}",
            "at least 1x, one thread",
            f"{ratio:.1f}x ({min(ratios):.1f} to {max(ratios):.1f}, {ROUNDS} rounds in turn; "
            f"marco {speed:.1f} MB/s)",
            ratio >= 1,
        )  # fmt: skip
    results.finish()


if __name__ == "__main__":
    main()

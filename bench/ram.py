#!/usr/bin/env python3
"""Decoding with a budget below the model's size, against what the disk allows.

In turns: read a part of the file past the page cache; then decode random tokens with --ram, the
model's file dropped from the page cache, and compare the tokens a second with the disk's rate over
the bytes missed per token. Then a run records its choices of experts, which are replayed against a
cache of the same size that gives up the least recently used; and the processes' peak memory is held
against the budget.
"""
import argparse
import os
import statistics
import subprocess
import tempfile

import common


def traced_run(arguments, seed, trace):
    """A run on sampled tokens that records its choices of experts."""
    command = [arguments.marco, "run", "-m", arguments.model, "--json", "--quiet", "--raw",
               "--prompt", "a", "--ignore-eos", "--temp", "100", "--seed", str(seed),
               "--tokens", str(arguments.tokens), "--ram", arguments.ram, "--trace", trace]
    if arguments.threads:
        command += ["--threads", str(arguments.threads)]
    return common.run_json(command)["stats"]


def replayed_misses(arguments, trace, slots):
    done = subprocess.run([arguments.marco, "trace", trace, "--slots", str(slots), "--policy", "lru",
                           "--json"], stdout=subprocess.PIPE, text=True, check=True)
    return common.json.loads(done.stdout)["misses"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    common.add_arguments(parser)
    parser.add_argument("--ram", default="6G", help="the budget (6G)")
    parser.add_argument("--tokens", type=int, default=60, help="tokens a round (60)")
    parser.add_argument("--context", type=int, default=4096,
                        help="tokens of context before them (4096): with few, random weights choose "
                             "nearly the same experts for every token")
    parser.add_argument("--sample", type=float, default=2, metavar="GB",
                        help="how much of the file to read for the disk's rate (2)")
    arguments = common.parse(parser)
    size = os.path.getsize(arguments.model)
    sample = min(int(arguments.sample * 1e9), size) // (4 * common.CHUNK) * (4 * common.CHUNK)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            begin = (size - sample) * number // max(arguments.rounds - 1, 1)
            begin = begin // common.CHUNK * common.CHUNK
            common.forget(arguments.model)
            disk = common.disk_rate(arguments.model, begin, sample)
            common.forget(arguments.model)
            report = common.bench(arguments, "--ram", arguments.ram, "--decode",
                                  str(arguments.context), "--tokens", str(arguments.tokens),
                                  "--reps", "1")
            result = report["results"][0]
            rate, missed = result["tok_s"]["median"], result["expert_bytes_read_per_token"]
            trace = os.path.join(folder, f"trace{number}")
            stats = traced_run(arguments, number + 1, trace)
            peak = max(report["peak_memory_bytes"], stats["peak_memory_bytes"])
            rows.append({"disk": disk, "missed": missed, "tok_s": rate,
                         "share": rate * missed / disk,
                         "peak": peak / stats["budget_bytes"],
                         "misses": stats["expert_misses"],
                         "lru": replayed_misses(arguments, trace, stats["expert_slots"])})
            common.say(f"round {number + 1} of {arguments.rounds}: disk {disk * 1e-9:.2f} GB/s, "
                       f"{missed * 1e-6:.0f} MB missed a token, {rate:.2f} tokens/s")
    column = {key: [row[key] for row in rows] for key in rows[0]}
    print(f"{arguments.model}, --ram {arguments.ram}: median (smallest to largest) of "
          f"{arguments.rounds} rounds:\n")
    common.table(["", "seen"], [
        ["disk, GB/s", common.show([v * 1e-9 for v in column["disk"]])],
        ["missed a token, MB", common.show([v * 1e-6 for v in column["missed"]], 0)],
        ["tokens/s", common.show(column["tok_s"])],
        ["tokens/s over (disk / missed)", common.show(column["share"])],
        ["misses over LRU's on the same trace",
         common.show([m / max(n, 1) for m, n in zip(column["misses"], column["lru"])], 4)],
        ["peak memory over the budget", common.show(column["peak"], 3)],
    ])
    common.write(arguments, {"rounds": rows, "share": statistics.median(column["share"])})


if __name__ == "__main__":
    main()

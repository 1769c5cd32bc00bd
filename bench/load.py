#!/usr/bin/env python3
"""How fast a model loads, against how fast the disk reads; and whether the first reply is slow.

In turns: read a part of the file past the page cache, as one stream and as four, whichever is
faster; then load the model with its file dropped from the page cache. (What a host keeps of a
virtual machine's disk cannot be dropped from inside, and serves both.)
"""
import argparse
import os
import statistics

import common

def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    common.add_arguments(parser)
    parser.add_argument("--sample", type=float, default=4, metavar="GB",
                        help="how much of the file to read for the disk's rate (4)")
    arguments = common.parse(parser)
    size = os.path.getsize(arguments.model)
    sample = min(int(arguments.sample * 1e9), size) // (4 * common.CHUNK) * (4 * common.CHUNK)
    if sample <= 0:
        parser.error(f"{arguments.model}: too small to measure, or --sample is")

    rows = []
    for number in range(arguments.rounds):
        # Another part every time, over the whole of the file.
        begin = (size - sample) * number // max(arguments.rounds - 1, 1) // common.CHUNK * common.CHUNK
        common.forget(arguments.model)
        disk = common.disk_rate(arguments.model, begin, sample)
        common.forget(arguments.model)
        report = common.bench(arguments, "--prefill", "16", "--reps", "1")
        first = report["first_token"]
        rows.append({"disk": disk, "load": size / report["load_seconds"],
                     "share": size / report["load_seconds"] / disk,
                     "first_ms": first["first_ms"], "second_ms": first["second_ms"],
                     "first_ratio": first["first_ms"] / first["second_ms"]})
        common.say(f"round {number + 1} of {arguments.rounds}: disk {disk * 1e-9:.2f} GB/s, load "
                   f"{rows[-1]['load'] * 1e-9:.2f} GB/s; first token after {first['first_ms']:.0f} "
                   f"ms, second request's {first['second_ms']:.0f} ms")
    column = {key: [row[key] for row in rows] for key in rows[0]}
    print(f"{arguments.model}: median (smallest to largest) of {arguments.rounds} rounds:\n")
    common.table(["", "seen"], [
        ["disk, GB/s", common.show([v * 1e-9 for v in column["disk"]])],
        ["loading, GB/s", common.show([v * 1e-9 for v in column["load"]])],
        ["loading / disk", common.show(column["share"])],
        ["first token / second request's", common.show(column["first_ratio"])],
    ])
    common.write(arguments, {"rounds": rows, "share": statistics.median(column["share"])})


if __name__ == "__main__":
    main()

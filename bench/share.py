#!/usr/bin/env python3
"""What is left of decoding's speed when another process wants a core all the time.

With T threads on C cores and one more process, the fair share is T / (T + 1) of the cores, and of
the speed where all of them were in use. Runs alone and runs in company take turns.
"""
import argparse
import os
import subprocess
import sys

import common


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    common.add_arguments(parser)
    parser.add_argument("--tokens", type=int, default=64, help="tokens to decode (64)")
    arguments = common.parse(parser)
    if arguments.tokens < 1:
        parser.error("--tokens must be 1 or more")

    def rate():
        report = common.bench(arguments, "--decode", "0", "--tokens", str(arguments.tokens),
                              "--reps", "3")
        return report["results"][0]["tok_s"]["median"], report["threads"]

    alone, company, threads = [], [], 1
    for number in range(arguments.rounds):
        speed, threads = rate()
        alone.append(speed)
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            company.append(rate()[0])
        finally:
            other.kill()
            other.wait()
        common.say(f"round {number + 1} of {arguments.rounds}: alone {alone[-1]:.2f}, in company "
                   f"{company[-1]:.2f} tokens/s")
    ratios = [b / a for a, b in zip(alone, company)]
    cores = len(os.sched_getaffinity(0))
    fair = min(1, cores / (threads + 1)) if threads <= cores else threads / (threads + 1)
    print(f"{arguments.model}, {threads} threads on {cores} processors: median (smallest to "
          f"largest) of {arguments.rounds} rounds:\n")
    common.table(["", "seen"], [
        ["alone, tokens/s", common.show(alone)],
        ["beside a busy process, tokens/s", common.show(company)],
        ["ratio", common.show(ratios)],
        ["fair share", f"{fair:.2f}"],
    ])
    common.write(arguments, {"alone": alone, "company": company, "ratio": ratios, "fair": fair})


if __name__ == "__main__":
    main()

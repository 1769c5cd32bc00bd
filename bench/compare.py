#!/usr/bin/env python3
"""marco and llama.cpp side by side: one file, equal threads, alternating runs.

Each measurement is a process of its own, which loads the model, warms up and measures, so that
models which fit the memory only once can be compared too. The programs take turns, each going first
in every other round, and what is reported is the median of the rounds' ratios.

llama.cpp reads the model without mmap, into memory as marco does.
"""
import argparse
import ctypes
import json
import random
import sys
import time

import common


def llama_measure(model, threads, prefill, tokens, reps):
    """Tokens a second of llama.cpp, a list for each measurement."""
    import llama_cpp as ll

    @ll.llama_log_callback
    def log(level, text, user):
        if level == 4:  # errors
            sys.stderr.write(text.decode("utf-8", "replace"))

    ll.llama_log_set(log, ctypes.c_void_p(0))
    ll.llama_backend_init()
    model_params = ll.llama_model_default_params()
    model_params.use_mmap = False
    model_params.n_gpu_layers = 0
    start = time.monotonic()
    loaded = ll.llama_model_load_from_file(model.encode(), model_params)
    if not loaded:
        sys.exit(f"llama.cpp cannot load {model}")
    load_seconds = time.monotonic() - start
    params = ll.llama_context_default_params()
    params.n_ctx = max(prefill, tokens) + 64
    params.n_batch = params.n_ubatch = 512
    params.n_threads = params.n_threads_batch = threads
    context = ll.llama_init_from_model(loaded, params)
    if not context:
        sys.exit("llama.cpp cannot make a context")
    n_vocab = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(loaded))
    pick = random.Random(1)

    def evaluate(n):
        ids = (ll.llama_token * n)(*(pick.randrange(n_vocab) for _ in range(n)))
        for at in range(0, n, 512):
            count = min(512, n - at)
            part = ctypes.cast(ctypes.byref(ids, at * ctypes.sizeof(ll.llama_token)),
                               ctypes.POINTER(ll.llama_token))
            # A batch without a list of outputs gives the logits of its last token.
            if ll.llama_decode(context, ll.llama_batch_get_one(part, count)) != 0:
                sys.exit("llama.cpp: decoding failed")
        ll.llama_get_logits_ith(context, -1)  # waits until they are there

    def measure(lengths):
        ll.llama_memory_clear(ll.llama_get_memory(context), True)
        begun = time.monotonic()
        for n in lengths:
            evaluate(n)
        return sum(lengths) / (time.monotonic() - begun)

    measure([16] + [1] * 4)
    return {
        "prefill": [measure([prefill]) for _ in range(reps)],
        "decode": [measure([1] * tokens) for _ in range(reps)],
        "load_seconds": load_seconds,
    }


def run_llama(arguments, threads):
    return common.run_json([sys.executable, __file__, arguments.model, "--llama-only",
                            "--threads", str(threads), "--prefill", str(arguments.prefill),
                            "--tokens", str(arguments.tokens), "--reps", str(arguments.reps)])


def run_marco(arguments):
    report = common.bench(arguments, "--prefill", str(arguments.prefill), "--decode", "0",
                          "--tokens", str(arguments.tokens), "--reps", str(arguments.reps))
    return {r["name"]: r for r in report["results"]} | {"report": report}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                     epilog="docs/performance.md tells how results are read.")
    common.add_arguments(parser)
    parser.add_argument("--prefill", type=int, default=512, help="tokens of the prompt (512)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens to decode (64)")
    parser.add_argument("--reps", type=int, default=3,
                        help="repetitions within a round, whose median counts (3)")
    parser.add_argument("--llama-only", action="store_true", help=argparse.SUPPRESS)
    if "--llama-only" in sys.argv:
        o = parser.parse_args()
        print(json.dumps(llama_measure(o.model, o.threads, o.prefill, o.tokens, o.reps)))
        return
    arguments = common.parse(parser)
    if min(arguments.prefill, arguments.tokens, arguments.reps) < 1:
        parser.error("--prefill, --tokens and --reps must be 1 or more")

    names = [f"prefill {arguments.prefill}", "decode"]
    rates = {name: {"marco": [], "llama.cpp": [], "ratio": []} for name in names}
    rounds = []
    for number in range(arguments.rounds):
        # The first is marco, whose choice of threads llama.cpp is given.
        if number % 2 == 0:
            ours = run_marco(arguments)
            theirs = run_llama(arguments, ours["report"]["threads"])
        else:
            theirs = run_llama(arguments, rounds[0]["marco"]["threads"])
            ours = run_marco(arguments)
        rounds.append({"marco": ours["report"], "llama.cpp": theirs})
        for name in names:
            kind = name.split()[0]
            rate = rates[name]
            rate["marco"].append(ours[kind]["tok_s"]["median"])
            rate["llama.cpp"].append(common.spread(theirs[kind])["median"])
            rate["ratio"].append(rate["marco"][-1] / rate["llama.cpp"][-1])
            common.say(f"round {number + 1} of {arguments.rounds}, {name}: marco "
                       f"{rate['marco'][-1]:.2f}, llama.cpp {rate['llama.cpp'][-1]:.2f} tokens/s")
    first = rounds[0]["marco"]
    print(f"{first['model']} ({first['types']}), {first['threads']} threads, {first['level']}; "
          f"tokens/s, median (smallest to largest) of {arguments.rounds} rounds:\n")
    common.table(["", "marco", "llama.cpp", "marco / llama.cpp"],
                 [[name] + [common.show(rates[name][who]) for who in ("marco", "llama.cpp", "ratio")]
                  for name in names])
    common.write(arguments, {"summary": {name: {who: common.spread(values)
                                                for who, values in rates[name].items()}
                                         for name in names}, "rounds": rounds})


if __name__ == "__main__":
    main()

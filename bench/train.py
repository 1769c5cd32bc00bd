#!/usr/bin/env python3
"""Training speed of marco and of PyTorch side by side: one shape, equal threads, alternating runs.

PyTorch trains transformers' Qwen3MoeForCausalLM in float32 with AdamW (fused) and clipping, with
the fastest of its ways to compute experts, which short runs find first. Each run is a process of
its own, which warms up and measures; the programs take turns, each going first in every other
round, and what is reported is the median of the rounds' ratios.
"""
import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import common

SHAPE = {"layers": 6, "dim": 256, "heads": 4, "kv_heads": 2, "head_dim": 64, "experts": 64,
         "experts_used": 8, "expert_dim": 64, "vocab": 16384}
WAYS = [f"{experts}{compiled}" for compiled in ("", "+compile")
        for experts in ("eager", "batched_mm", "grouped_mm")]
LR = 3e-4


# ---- PyTorch -------------------------------------------------------------------------------------


def torch_model(way, seq_len):
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    config = transformers.Qwen3MoeConfig(
        vocab_size=SHAPE["vocab"], hidden_size=SHAPE["dim"], num_hidden_layers=SHAPE["layers"],
        num_attention_heads=SHAPE["heads"], num_key_value_heads=SHAPE["kv_heads"],
        head_dim=SHAPE["head_dim"], num_experts=SHAPE["experts"],
        num_experts_per_tok=SHAPE["experts_used"], moe_intermediate_size=SHAPE["expert_dim"],
        intermediate_size=SHAPE["expert_dim"], norm_topk_prob=True, tie_word_embeddings=True,
        max_position_embeddings=seq_len)
    experts, _, compiled = way.partition("+")
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="sdpa", experts_implementation=experts)
    model.train()
    return model, torch.compile(model) if compiled else model


def limit_memory():
    """A way that wants more than there is (batched_mm gathers every token's experts) is to fail
    rather than to have other programs killed."""
    with open("/proc/meminfo", encoding="ascii") as file:
        sizes = dict(line.split(":") for line in file)
    available = int(sizes["MemAvailable"].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (int(available * 0.9), resource.RLIM_INFINITY))


def torch_measure(way, threads, batch, seq_len, warmup, steps):
    """Tokens a second of each step."""
    limit_memory()
    import torch
    import transformers

    torch.set_num_threads(threads)
    model, forward = torch_model(way, seq_len)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=0.1,
                                  fused=True)
    rates = []
    for _ in range(warmup + steps):
        ids = torch.randint(SHAPE["vocab"], (batch, seq_len))
        begun = time.monotonic()
        forward(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        rates.append(batch * seq_len / (time.monotonic() - begun))
    return {"rates": rates[warmup:], "version": f"PyTorch {torch.__version__}, transformers "
            f"{transformers.__version__}", "parameters": model.num_parameters()}


def run_torch(arguments, way, threads, steps):
    return common.run_json([sys.executable, __file__, "--torch-only", way, "--threads",
                            str(threads), "--batch", str(arguments.batch), "--seq-len",
                            str(arguments.seq_len), "--warmup", str(arguments.warmup), "--steps",
                            str(steps)])


def try_ways(arguments, threads):
    """The fastest way, and what each gave: a rate, or why there is none."""
    found = {}
    for way in arguments.ways.split(","):
        try:
            done = subprocess.run(
                [sys.executable, __file__, "--torch-only", way, "--threads", str(threads),
                 "--batch", str(arguments.batch), "--seq-len", str(arguments.seq_len), "--warmup",
                 str(arguments.warmup), "--steps", "2"],
                capture_output=True, text=True, timeout=arguments.timeout)
        except subprocess.TimeoutExpired:
            found[way] = f"more than {arguments.timeout} s"
        else:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            found[way] = (common.spread(json.loads(done.stdout)["rates"])["median"]
                          if done.returncode == 0 else lines[-1][:200])
        common.say(f"PyTorch, experts {way}: {describe(found[way])}")
    rates = {way: rate for way, rate in found.items() if not isinstance(rate, str)}
    if not rates:
        sys.exit("PyTorch: none of the ways works")
    return max(rates, key=rates.get), found


def describe(rate):
    return rate if isinstance(rate, str) else f"{rate:.0f} tokens/s"


# ---- marco ---------------------------------------------------------------------------------------


def spelling():
    """GPT-2's printable character for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(others)}}


LETTERS = "abcdefghijklmnopqrstuvwxyz"
SYLLABLES = [f"{a.upper()}{b}{c.upper()}" for a in LETTERS for b in LETTERS for c in LETTERS[:22]]


def write_tokenizer(folder):
    """Bytes, and syllables like "MoV", each a token: text whose ids go over the whole
    vocabulary."""
    pairs = list(dict.fromkeys(s[:2] for s in SYLLABLES))
    words = [*spelling().values(), *pairs, *SYLLABLES]
    merges = [[p[0], p[1]] for p in pairs] + [[s[:2], s[2]] for s in SYLLABLES]
    ends = {"id": len(words), "content": "<|endoftext|>", "special": True, "single_word": False,
            "lstrip": False, "rstrip": False, "normalized": False}
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
               r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
             "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
             "invert": False}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [ends],
        "normalizer": {"type": "NFC"}, "post_processor": level, "decoder": level,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": "", "end_of_word_suffix": "",
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {word: i for i, word in enumerate(words)}, "merges": merges},
    }
    settings = {"tokenizer_class": "Qwen2Tokenizer", "add_bos_token": False, "bos_token": None,
                "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": None}
    for name, value in (("tokenizer.json", tokenizer), ("tokenizer_config.json", settings)):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(value, file)


def prepare(arguments, folder):
    """A tokenizer, and data for all steps of a run."""
    pick, path = random.Random(1), os.path.join(folder, "text.txt")
    n = (arguments.warmup + arguments.steps + 1) * arguments.batch * arguments.seq_len
    with open(path, "w", encoding="ascii") as file:
        for _ in range(0, n, 16):
            file.write(" " + "".join(pick.choices(SYLLABLES, k=16)))
    write_tokenizer(folder)
    data = os.path.join(folder, "data")
    run_marco(arguments, "data", path, "--tokenizer", folder, "--to", data, "-q")
    recipe = {
        "model": {"architecture": "qwen3moe", "tokenizer": os.path.join(folder, "tokenizer.json"),
                  "ffn_dim": 0, "context": arguments.seq_len, **SHAPE},
        "data": {"sources": [{"path": data}]},
        "seq_len": arguments.seq_len, "batch": arguments.batch, "micro_batch": arguments.batch,
        "steps": arguments.warmup + arguments.steps,
        "optimizer": {"lr": LR, "clip": 1.0}, "schedule": {"kind": "constant"},
        "balance": {"kind": "none"}, "valid": {"every": 0}, "checkpoint": {"every": 0},
    }
    with open(os.path.join(folder, "recipe.json"), "w", encoding="utf-8") as file:
        json.dump(recipe, file)


def run_marco(arguments, *options):
    done = subprocess.run([arguments.marco, *options], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"marco {' '.join(options)}: exit status {done.returncode}\n{done.stderr[-2000:]}")


def marco_measure(arguments, folder):
    """Tokens a second and share of the roof of each step, and what the run was."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        run = os.path.join(place, "run")
        threads = ["--threads", str(arguments.threads)] if arguments.threads else []
        run_marco(arguments, "train", os.path.join(folder, "recipe.json"), "--to", run, "-q",
                  *threads)
        with open(os.path.join(run, "metrics.jsonl"), encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
    steps = [line for line in lines if line["kind"] == "step"][arguments.warmup:]
    return {"rates": [s["tokens_per_second"] for s in steps],
            "shares": [s["roof_share"] for s in steps],
            "run": next(line for line in lines if line["kind"] == "run")}


# ---- both ----------------------------------------------------------------------------------------


def rounds_of(arguments, folder, way, threads, ours):
    """Every round's measurements; the first is `ours` already."""
    rounds = []
    for number in range(arguments.rounds):
        if number % 2 == 1:
            theirs = run_torch(arguments, way, threads, arguments.steps)
        if number > 0:
            ours = marco_measure(arguments, folder)
        if number % 2 == 0:
            theirs = run_torch(arguments, way, threads, arguments.steps)
        rounds.append({"marco": ours, "PyTorch": theirs})
        common.say(f"round {number + 1} of {arguments.rounds}: marco "
                   f"{statistics.median(ours['rates']):.0f}, PyTorch "
                   f"{statistics.median(theirs['rates']):.0f} tokens/s")
    return rounds


def report(arguments, rounds, way, ways):
    run, median = rounds[0]["marco"]["run"], statistics.median
    rates = {who: [median(r[who]["rates"]) for r in rounds] for who in ("marco", "PyTorch")}
    ratios = [a / b for a, b in zip(rates["marco"], rates["PyTorch"])]
    shares = [median(r["marco"]["shares"]) for r in rounds]
    shape = ", ".join(f"{key} {value}" for key, value in SHAPE.items())
    print(f"qwen3moe ({shape}), {run['plan']['total_params']} parameters, batch "
          f"{arguments.batch} x {arguments.seq_len}, {run['threads']} threads, F32, AdamW\n"
          f"marco {run['version']} ({run['level']}, {run['blas']}); "
          f"{rounds[0]['PyTorch']['version']}, experts {way}\n"
          f"tokens/s, median (smallest to largest) of {arguments.rounds} rounds of "
          f"{arguments.steps} steps:\n")
    common.table(["marco", "PyTorch", "marco / PyTorch", "share of the F32 roof"],
                 [[common.show(rates["marco"], 0), common.show(rates["PyTorch"], 0),
                   common.show(ratios), common.show(shares, 3)]])
    print(f"\nThe roof is {run['roof_gflops']:.0f} GFLOPS. PyTorch's ways: "
          + "; ".join(f"{name} {describe(rate)}" for name, rate in ways.items()))
    common.write(arguments, {"shape": SHAPE, "ways": ways, "rounds": rounds, "summary": {
        "marco": common.spread(rates["marco"]), "PyTorch": common.spread(rates["PyTorch"]),
        "ratio": common.spread(ratios), "roof_share": common.spread(shares)}})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                     epilog="docs/performance.md tells how results are read.")
    common.add_arguments(parser, model=False)
    parser.add_argument("--steps", type=int, default=10, help="steps of a run that count (10)")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them (2)")
    parser.add_argument("--batch", type=int, default=8, help="sequences of a step (8)")
    parser.add_argument("--seq-len", type=int, default=256, help="tokens of a sequence (256)")
    parser.add_argument("--ways", default=",".join(WAYS),
                        help="of PyTorch's to try, transformers' names (%(default)s)")
    parser.add_argument("--timeout", type=int, default=300,
                        help="seconds after which a way is given up (300)")
    parser.add_argument("--torch-only", metavar="WAY", help=argparse.SUPPRESS)
    if "--torch-only" in sys.argv:
        o = parser.parse_args()
        print(json.dumps(torch_measure(o.torch_only, o.threads, o.batch, o.seq_len, o.warmup,
                                       o.steps)))
        return
    arguments = common.parse(parser)
    if min(arguments.steps, arguments.batch, arguments.seq_len - 1) < 1 or arguments.warmup < 0:
        parser.error("--steps and --batch must be 1 or more, --seq-len 2, --warmup 0")
    with tempfile.TemporaryDirectory(prefix="marco-bench-") as folder:
        prepare(arguments, folder)
        # The first is marco, whose choice of threads PyTorch is given.
        ours = marco_measure(arguments, folder)
        threads = ours["run"]["threads"]
        way, ways = try_ways(arguments, threads)
        rounds = rounds_of(arguments, folder, way, threads, ours)
    report(arguments, rounds, way, ways)


if __name__ == "__main__":
    main()

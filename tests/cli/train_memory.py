#!/usr/bin/env python3
"""What training takes against what --dry-run says: train_memory.py MARCO.

Two runs of a recipe that differ in their activations alone: their peaks must differ by what their
plans do, within a tenth; and one's peak may exceed its whole plan by a tenth and what the program
and OpenBLAS take by themselves."""
import json
import os
import subprocess
import sys
import tempfile

MARCO = sys.argv[1]
OWN = 48 << 20  # the program, OpenBLAS's buffers, a checkpoint's windows

TEXT = "".join(f"{i} {i * i} sentences of {i % 97} words each\n" for i in range(12000))
RECIPE = {
    "model": {"architecture": "qwen3moe", "tokenizer": "tok", "layers": 4, "dim": 128, "heads": 4,
              "kv_heads": 2, "head_dim": 32, "experts": 16, "experts_used": 4, "expert_dim": 64,
              "context": 256},
    "data": {"sources": ["data"]}, "seq_len": 256, "batch": 32, "steps": 2, "seed": 1,
    "balance": {"kind": "global", "coefficient": 0.01}, "checkpoint": {"every": 0},
}
failed = 0


def check(what, good, seen):
    global failed
    if not good:
        failed += 1
        print(f"FAILED: {what}: {seen}")


def marco(*words):
    subprocess.run([MARCO, *words], check=True, stdout=subprocess.DEVNULL)


def peak(changes, run):
    """Bytes that a run held at most, and its plan."""
    child = subprocess.Popen([MARCO, "train", "recipe.json", "--to", run, "-q", "-t", "2",
                              *(word for change in changes for word in ("--set", change))])
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"marco train: exit status {child.returncode}")
    with open(os.path.join(run, "metrics.jsonl"), encoding="utf-8") as file:
        return usage.ru_maxrss << 10, json.loads(file.readline())["plan"]


def main():
    with open("text.txt", "w", encoding="ascii") as file:
        file.write(TEXT)
    with open("recipe.json", "w", encoding="ascii") as file:
        json.dump(RECIPE, file)
    marco("tokenizer", "train", "--to", "tok", "--vocab-size", "1024", "text.txt")
    marco("data", "--tokenizer", "tok", "--to", "data", "--lines", "-q", "text.txt")
    for name, shared in (("kept", []), ("recomputed", ["recompute=true"]),
                         ("bf16", ["weights=bf16"])):
        small, plan_small = peak([*shared, "micro_batch=4"], name + "-small")
        large, plan = peak([*shared, "micro_batch=32"], name + "-large")
        grown, planned = large - small, plan["total_bytes"] - plan_small["total_bytes"]
        check(f"{name}: activations are as planned", abs(grown - planned) <= planned / 10,
              f"{grown} bytes more, {planned} planned")
        whole = plan["total_bytes"]
        check(f"{name}: all is as planned", whole * 0.9 <= large <= whole * 1.1 + OWN,
              f"{large} bytes, {whole} planned")
        print(f"{name}: activations {grown / planned:.3f} of the plan, all "
              f"{large / whole:.3f}")
    print(f"{6 - failed} passed, {failed} failed")


with tempfile.TemporaryDirectory(prefix="marco-memory-") as folder:
    os.chdir(folder)
    main()
    os.chdir("/")
sys.exit(failed > 0)

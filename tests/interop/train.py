#!/usr/bin/env python3
"""Training against PyTorch on transformers' models: every gradient of whole models, losses over
twenty steps, and what transformers makes of a checkpoint that `marco train` has written.

    python train.py [CASE ...]      (those of tests/vectors/make_train.py)

Gradients come from train_steps, which is built with the tests.
"""

import json
import os
import subprocess
import sys
import tempfile

import safetensors.torch
import torch
import transformers

import results

sys.path.insert(0, os.path.join(results.REPOSITORY, "tests", "vectors"))
import make_train  # noqa: E402
import tiny  # noqa: E402

STEPS = os.path.join(os.path.dirname(results.MARCO), "tests", "interop", "train_steps")
SEED = 1
GRADIENT_BAR = 1e-4  # of a gradient's norm
LOSS_BAR = 1e-3
LOGIT_BAR = 1e-3
LETTERS = 800  # of the document that runs are given
ENDOFTEXT = 256  # of the tiny checkpoints' tokenizer


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f)


# ---- gradients, and steps on given tokens --------------------------------------------------------


def run_steps(folder, job):
    """marco's gradients of the first step, and its losses of all."""
    gradients, vector = os.path.join(folder, "gradients"), os.path.join(folder, "vector.json")
    os.mkdir(gradients)
    write_json(vector, {"job": job})
    done = subprocess.run([STEPS, os.path.join(folder, "checkpoint"), vector, gradients],
                          capture_output=True, encoding="utf-8")  # fmt: skip
    if done.returncode:
        sys.exit(f"train_steps: {done.stderr.strip()}")
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    file = os.path.join(gradients, "model.safetensors")
    return safetensors.torch.load_file(file), steps


def compare_steps(name, seed, config):
    job = make_train.job_of(name, seed)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = os.path.join(folder, "checkpoint")
        tiny.write_checkpoint(checkpoint, config, seed)
        theirs, losses, norms, _ = make_train.train(checkpoint, job)
        ours, steps = run_steps(folder, job)
    if ours.keys() != theirs.keys():
        sys.exit(f"{name}: not the same gradients: {ours.keys() ^ theirs.keys()}")
    worst, where = 0.0, "-"
    for key, grad in theirs.items():
        # An expert without a token has none.
        error = ((ours[key] - grad).norm() / grad.norm().clamp_min(1e-30)).item()
        if not error <= worst:
            worst, where = error, key
    results.row(
        f"gradients of {name}, {len(theirs)} tensors",
        f"each within {GRADIENT_BAR:g} of its norm",
        f"{worst:.1e} at most ({where})",
        worst <= GRADIENT_BAR,
    )
    report_losses(f"losses of {name}, {len(steps)} steps on given tokens", steps, losses)


def report_losses(what, steps, theirs):
    """steps: marco's lines; theirs: loss, balance and z loss of each."""
    if len(steps) != len(theirs):
        sys.exit(f"{what}: {len(steps)} steps, not {len(theirs)}")
    loss = max(abs(s["loss"] - t[0]) for s, t in zip(steps, theirs))
    rest = max(abs(s[k] - t[i]) for s, t in zip(steps, theirs) for i, k in ((1, "balance"), (2, "z")))
    results.row(
        what,
        f"each within {LOSS_BAR:g}",
        f"{loss:.1e}; balance and z {rest:.1e}; {theirs[0][0]:.3f} to {theirs[-1][0]:.3f}",
        loss <= LOSS_BAR and rest <= LOSS_BAR,
    )


# ---- a run of the program ------------------------------------------------------------------------


def stream_job(name, document):
    """The job that a run with one document does: it comes again and again, each time ended by
    <|endoftext|>, cut where a sequence is full; nothing is predicted from its end."""
    job = {**make_train.JOB, "steps": make_train.STEPS, **make_train.CASES[name][1]}
    job.update(batches=job["steps"], ids=[], targets=[], starts=[])
    period = [*document, ENDOFTEXT]
    for at in range(job["steps"] * job["sequences"] * job["seq_len"]):
        place, inside = at % len(period), at % job["seq_len"]
        job["ids"].append(period[place])
        job["targets"].append(period[place + 1] if place + 1 < len(period) else -1)
        job["starts"].append(max(inside - place, 0))
    return job


def recipe_of(job, checkpoint, data):
    balance = {"kind": job["balance"], "z_loss": job["z_loss"]}
    if job["balance"] in ("switch", "global"):
        balance["coefficient"] = job["coefficient"]
    elif job["balance"] == "bias":
        balance["bias_rate"] = job["bias_rate"]
    return {
        "model": checkpoint,
        "data": {"sources": [{"path": data}]},
        "seq_len": job["seq_len"],
        "batch": job["sequences"],
        "micro_batch": job["sequences"] // job["passes"],
        "steps": job["steps"],
        "optimizer": {k: job[k] for k in ("lr", "beta1", "beta2", "eps", "weight_decay", "clip")},
        "schedule": {"kind": "constant"},
        "balance": balance,
    }


def run_program(folder, document, job, *settings):
    """Trains; the lines of its metrics about steps, and the last checkpoint."""
    text, data = os.path.join(folder, "text.txt"), os.path.join(folder, "data")
    run, recipe = os.path.join(folder, "run"), os.path.join(folder, "recipe.json")
    checkpoint = os.path.join(folder, "checkpoint")
    with open(text, "wb") as f:
        f.write(document)
    write_json(recipe, recipe_of(job, checkpoint, data))
    results.marco("data", text, "--tokenizer", checkpoint, "--to", data, "-q")
    sets = [word for setting in settings for word in ("--set", setting)]
    results.marco("train", recipe, "--to", run, "-q", *sets)
    with open(os.path.join(run, "metrics.jsonl"), encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    checkpoints = sorted(os.listdir(os.path.join(run, "checkpoints")))
    steps = [{**line, "z": line["z_loss"]} for line in lines if line["kind"] == "step"]
    return steps, os.path.join(run, "checkpoints", checkpoints[-1])


@torch.no_grad()
def compare_logits(name, folder, document, vocab):
    """Log-probabilities, which are logits but for a number a position."""
    ids = list(document[:64])
    theirs = make_train.load(folder)(torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
    _, rows = results.score(folder, vocab, ids=ids)
    ours = torch.full_like(theirs, float("nan"))
    for position, pairs in enumerate(rows):
        for i, logprob in pairs:
            ours[position, i] = logprob
    largest = (ours - theirs).abs().max().nan_to_num(float("inf")).item()
    results.row(
        f"log-probabilities of the checkpoint of {name} in transformers",
        f"within {LOGIT_BAR:g}",
        f"{largest:.1e}",
        largest <= LOGIT_BAR,
    )


def compare_run(name, seed, config):
    """With the first seed, from `seed` on, whose routers stay clear of ties in PyTorch: of two
    experts at a tie, each program's rounding chooses its own, and their losses part."""
    gap = 0
    while gap < make_train.ROUTER_GAP:
        letters = tiny.random_below(seed, "letters", LETTERS, 26)
        document = bytes(ord("a") + letter for letter in letters)
        job = stream_job(name, document)
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = os.path.join(folder, "checkpoint")
            tiny.write_checkpoint(checkpoint, config, seed)
            _, losses, _, gap = make_train.train(checkpoint, job)
            if gap >= make_train.ROUTER_GAP:
                steps, last = run_program(folder, document, job)
                report_losses(f"losses of {name}, {len(steps)} steps of marco train", steps, losses)
                compare_logits(name, last, document, config["vocab_size"])
        seed += 1


def compare_adapters(name, before, after, scale):
    """The weights of a run with LoRA are those it began from and scale * B A, by PEFT's names."""
    load = safetensors.torch.load_file
    first, last = (load(os.path.join(f, "model.safetensors")) for f in (before, after))
    adapters = load(os.path.join(after, "adapters.safetensors"))
    prefix, a = "base_model.model.", ".lora_A.weight"
    added = {key[len(prefix) : -len(a)] + ".weight": scale * adapters[key.replace("_A.", "_B.")] @ adapters[key]
             for key in adapters if key.endswith(a)}  # fmt: skip
    worst, moved = 0.0, 0
    for key, value in last.items():
        want = first[key].float() + added.pop(key, 0)
        moved += not torch.equal(first[key].float(), value)
        worst = max(worst, (value - want).abs().max().item())
    results.row(
        f"{moved} of {len(last)} weights of {name} moved by adapters",
        "the first ones + alpha / rank * B A",
        f"{worst:.1e} at most, {len(added)} adapters of nothing",
        worst <= 1e-6 and moved > 0 and not added,
    )


def compare_kinds(name, seed, config):
    """What a checkpoint of BF16 weights, and one with adapters, is to transformers."""
    letters = tiny.random_below(seed, "letters", LETTERS, 26)
    document = bytes(ord("a") + letter for letter in letters)
    job = stream_job(name, document)
    for kind, settings in {"BF16": ["weights=bf16"], "LoRA": ["lora.rank=4", "lora.alpha=6"]}.items():
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = os.path.join(folder, "checkpoint")
            tiny.write_checkpoint(checkpoint, config, seed)
            _, last = run_program(folder, document, job, *settings)
            compare_logits(f"{name}, {kind}", last, document, config["vocab_size"])
            if kind == "LoRA":
                compare_adapters(name, checkpoint, last, 6 / 4)


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in sys.argv[1:] or make_train.CASES:
        seed, config = SEED, make_train.configuration(name)
        path = os.path.join(results.REPOSITORY, "tests", "vectors", "train", f"{name}.json")
        if os.path.exists(path):
            # One that keeps routers clear of ties.
            with open(path, encoding="utf-8") as f:
                seed = json.load(f)["seed"]
        compare_steps(name, seed, config)
        compare_run(name, seed, config)
        compare_kinds(name, seed, config)
    results.finish()


if __name__ == "__main__":
    main()

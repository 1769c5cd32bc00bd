#!/usr/bin/env python3
"""The tiny checkpoints (tests/vectors/tiny.py) converted to GGUF, in llama.cpp and in marco, and
back to a folder, in transformers. Everything in F32; llama.cpp's cache too.

    python convert.py [CASE ...]
"""

import os
import subprocess
import sys
import tempfile

import llama_cpp
import numpy as np
import safetensors.numpy
import torch
import transformers

import results

VECTORS = os.path.join(results.REPOSITORY, "tests", "vectors")
sys.path.insert(0, VECTORS)
import make_logits  # noqa: E402
import tiny  # noqa: E402

BAR = 1e-3
TOP = 10
# What GGUF has no words for, and the words that the refusal must hold.
REFUSED = {
    "qwen3moe-plain-topk": "norm_topk_prob",
    "qwen3moe-dense-layers": "mlp_only_layers",
}


def load(folder):
    """The model in transformers, and what it says of tensors that were missing or left over."""
    model, found = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    return model.eval(), {kind: names for kind, names in found.items() if names}


@torch.no_grad()
def logits(model, sequence):
    return model(torch.tensor([sequence]), use_cache=False).logits[0]


def log_softmax(logits_of_positions):
    x = np.asarray(logits_of_positions, np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def top(logprobs):
    """Per position, the TOP likeliest ids with their log-probabilities."""
    order = np.argsort(-logprobs, axis=-1, kind="stable")[:, :TOP]
    return [[(int(i), float(row[i])) for i in ids] for row, ids in zip(logprobs, order)]


def compare(what, theirs, ours):
    """Lists of positions of (id, log-probability), likeliest first."""
    same = sum([i for i, _ in a] == [i for i, _ in b] for a, b in zip(theirs, ours))
    largest = max(
        abs(dict(a).get(i, float("inf")) - logprob)
        for a, b in zip(theirs, ours)
        for i, logprob in b
    )
    results.row(
        what,
        f"{TOP} likeliest ids equal, log-probabilities within {BAR:g}",
        f"{same} of {len(theirs)} positions equal, {largest:.1e}",
        same == len(theirs) == len(ours) and largest <= BAR,
    )


def in_llama_cpp(path, sequences):
    """Log-probabilities of every position."""
    model = llama_cpp.Llama(
        path,
        n_ctx=max(map(len, sequences)) + 1,
        n_batch=512,
        n_threads=1,
        n_threads_batch=1,
        logits_all=True,
        flash_attn=False,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        verbose=False,
    )
    rows = []
    for sequence in sequences:
        model.reset()
        model.eval(sequence)
        rows.append(log_softmax(model.scores[: len(sequence)]))
    model.close()
    return np.concatenate(rows)


def check_refused(name, folder, gguf):
    done = subprocess.run(
        [results.MARCO, "convert", folder, gguf], capture_output=True, encoding="utf-8"
    )
    named = REFUSED[name] in done.stderr
    results.row(
        f"{name} to GGUF",
        f"refused, naming {REFUSED[name]}; nothing written",
        done.stderr.strip() or "converted",
        done.returncode != 0 and named and not os.path.exists(gguf),
    )


def compare_folder(name, sequences, model, folder, back):
    before = safetensors.numpy.load_file(os.path.join(folder, "model.safetensors"))
    after = safetensors.numpy.load_file(os.path.join(back, "model.safetensors"))
    tensors = before.keys() == after.keys() and all(
        np.array_equal(before[k], after[k]) for k in before
    )
    again, wrong = load(back)
    same = all(torch.equal(logits(model, s), logits(again, s)) for s in sequences)
    results.row(
        f"{name} to GGUF and back, in transformers ({type(again).__name__})",
        "same tensors, loads whole, logits bit-identical",
        f"tensors {'equal' if tensors else 'differ'}, {wrong or 'loads whole'}, "
        f"logits {'identical' if same else 'differ'}",
        tensors and not wrong and same,
    )


def convert(name, path, scratch):
    _, seed, config = tiny.read_vector(path)
    folder, gguf, back = (os.path.join(scratch, n) for n in (name, name + ".gguf", name + "-back"))
    tiny.write_checkpoint(folder, config, seed)
    if name in REFUSED:
        check_refused(name, folder, gguf)
        return
    ids = tiny.random_below(seed, "ids", sum(make_logits.LENGTHS), config["vocab_size"])
    sequences = []
    for length in make_logits.LENGTHS:
        sequences.append(ids[:length])
        ids = ids[length:]
    model, _ = load(folder)
    theirs = top(log_softmax(np.concatenate([logits(model, s).numpy() for s in sequences])))

    results.marco("convert", folder, gguf, "-q")
    compare(f"{name} as GGUF in llama.cpp", theirs, top(in_llama_cpp(gguf, sequences)))
    ours = [row for s in sequences for row in results.score(gguf, TOP, ids=s)[1]]
    compare(f"{name} as GGUF in marco", theirs, [[tuple(pair) for pair in row] for row in ours])
    results.marco("convert", gguf, back, "-q")
    compare_folder(name, sequences, model, folder, back)


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in sys.argv[1:] or make_logits.CASES:
        with tempfile.TemporaryDirectory() as scratch:
            convert(name, os.path.join(VECTORS, "logits", f"{name}.txt"), scratch)
    results.finish()


if __name__ == "__main__":
    main()

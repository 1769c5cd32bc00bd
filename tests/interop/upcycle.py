#!/usr/bin/env python3
"""Exact surgery on real weights: SmolLM2-135M-Instruct cut into a mixture of experts (virtual
groups, `down` scaled, nothing dropped, K = N) against its dense parent, and the mixture as a
Hugging Face folder against transformers.

    python upcycle.py [PARENT.gguf]
"""

import json
import os
import sys
import tempfile

import torch
import transformers

import results

BAR = 1e-4  # relative to the largest log-probability of a position
TRANSFORMERS_BAR = 1e-3  # of the logits' standard deviation
TOP = 1000  # log-probabilities compared at a position
TOKENS = 64

PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n    ",
    "Water boils at",
    "The three laws of motion say that",
    "A recipe for pancakes:\n1.",
    "Dear Sir or Madam,\n\n",
    "In 1969, humans first",
    "Q: What is 17 + 25?\nA:",
    "The mitochondria",
    "SELECT name, COUNT(*) FROM",
    "My favourite season is autumn because",
    "Photosynthesis is the process by which",
    "Il était une fois",
    "#include <stdio.h>\n\nint main(void)\n{\n",
    "To be, or not to be,",
    "The stock market fell on Monday after",
    "Roses are red,\n",
    "It was a dark and stormy night;",
    "The difference between a list and a tuple is",
)


def find_parent():
    return sys.argv[1] if len(sys.argv) > 1 else results.parent()


def upcycle(parent, to):
    results.marco(
        "upcycle", "--from", parent, "--to", to, "--experts", 12, "--expert-dim", 512,
        "--top-k", 3, "--scale", "down", "--drop", 0, "--router", "virtual-group",
        "--type", "F32", "-q",
    )  # fmt: skip


def greedy(model, prompt):
    reply = results.marco(
        "run", "-m", model, "--raw", "--temp", 0, "--repeat-penalty", 1, "--ignore-eos",
        "-n", TOKENS, "--compute", "f32", "--json", "-q", "-p", prompt,
    )  # fmt: skip
    return json.loads(reply)


def relative(before, after):
    """Largest difference between two positions' log-probabilities, relative to the largest of
    them; the ids listed are the likeliest, which the two may order differently at the very end."""
    a, b = dict(before), dict(after)
    common = a.keys() & b.keys()
    if len(common) < 0.99 * len(a):
        return float("inf")
    return max(abs(a[i] - b[i]) for i in common) / max(abs(x) for x in a.values())


def compare_parent(parent, child):
    same = agree = positions = 0
    largest = 0.0
    for prompt in PROMPTS:
        before, after = greedy(parent, prompt), greedy(child, prompt)
        lengths = {before["stats"]["reply_tokens"], after["stats"]["reply_tokens"]}
        same += before["text"] == after["text"] and lengths == {TOKENS}
        ids, before_scores = results.score(parent, TOP, text=prompt + before["text"])
        _, after_scores = results.score(child, TOP, ids=ids)
        for before_top, after_top in zip(before_scores, after_scores):
            largest = max(largest, relative(before_top, after_top))
            agree += before_top[0][0] == after_top[0][0]
            positions += 1
    results.row(
        f"exact upcycle of SmolLM2-135M: {TOP} likeliest log-probabilities, {positions} positions",
        f"within {BAR:g} relative, same likeliest id",
        f"{largest:.1e}, {positions - agree} likeliest ids differ",
        largest <= BAR and agree == positions,
    )
    results.row(
        f"exact upcycle of SmolLM2-135M: {TOKENS} greedy tokens on {len(PROMPTS)} prompts",
        "all equal",
        f"{same} of {len(PROMPTS)} equal",
        same == len(PROMPTS),
    )


@torch.no_grad()
def compare_transformers(folder):
    model, found = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    wrong = {kind: names for kind, names in found.items() if names}
    largest, differ, positions = 0.0, 0, 0
    for prompt in PROMPTS:
        ids, ours = results.score(folder, TOP, text=prompt)
        theirs = model.eval()(torch.tensor([ids]), use_cache=False).logits[0].double()
        deviation = theirs.std()
        theirs = theirs.log_softmax(-1)
        for position, top in enumerate(ours):
            for i, logprob in top:
                difference = abs(theirs[position, i].item() - logprob) / deviation.item()
                largest = max(largest, difference)
            differ += int(theirs[position].argmax()) != top[0][0]
            positions += 1
    results.row(
        f"the mixture as a folder ({type(model).__name__}) in transformers, {positions} positions",
        f"loads whole, log-probabilities within {TRANSFORMERS_BAR:g} of the logits' deviation, "
        "same likeliest id",
        f"{wrong or 'loads whole'}, {largest:.1e}, {differ} likeliest ids differ",
        not wrong and largest <= TRANSFORMERS_BAR and differ == 0,
    )


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    parent = find_parent()
    with tempfile.TemporaryDirectory() as scratch:
        child = os.path.join(scratch, "moe.gguf")
        upcycle(parent, child)
        compare_parent(parent, child)
        os.remove(child)
        folder = os.path.join(scratch, "moe")
        upcycle(parent, folder)
        compare_transformers(folder)
    results.finish()


if __name__ == "__main__":
    main()

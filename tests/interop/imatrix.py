#!/usr/bin/env python3
"""Every number of the importance matrices of the tiny checkpoints (tests/vectors/tiny.py): marco
imatrix, read with the gguf package, against what transformers' modules are given on the same text.

    python imatrix.py [CASE ...]
"""

import os
import re
import sys
import tempfile

import gguf
import numpy as np
import torch
import transformers

import results

VECTORS = os.path.join(results.REPOSITORY, "tests", "vectors")
sys.path.insert(0, VECTORS)
import make_logits  # noqa: E402
import tiny  # noqa: E402

CTX, CHUNKS = 128, 3
BAR = 1e-4
LINEAR = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
}


class Inputs:
    """Sums of squares [mats, cols] and counts [mats] by GGUF name, gathered by hooks."""

    def __init__(self, model):
        self.sums, self.counts = {}, {}
        for name, module in model.named_modules():
            found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", name)
            if found and found[2] in LINEAR:
                name = f"blk.{found[1]}.{LINEAR[found[2]]}.weight"
                module.register_forward_pre_hook(self.linear(name))
            elif found and found[2] == "mlp.experts":
                module.register_forward_pre_hook(self.experts(f"blk.{found[1]}."))

    def add(self, name, mats, mat, rows):
        rows = rows.double().reshape(-1, rows.shape[-1])
        sums = self.sums.setdefault(name, np.zeros((mats, rows.shape[-1])))
        sums[mat] += (rows**2).sum(0).numpy()
        self.counts.setdefault(name, np.zeros(mats))[mat] += len(rows)

    def linear(self, name):
        return lambda module, given: self.add(name, 1, 0, given[0])

    def experts(self, layer):
        def hook(module, given):
            states, chosen = given[0].reshape(-1, given[0].shape[-1]), given[1]
            mats = len(module.down_proj)
            for expert in range(mats):
                rows = states[(chosen == expert).any(-1)]
                halves = torch.nn.functional.linear(rows, module.gate_up_proj[expert])
                gate, up = halves.chunk(2, dim=-1)
                for role, given_rows in (
                    ("ffn_gate_exps", rows),
                    ("ffn_up_exps", rows),
                    ("ffn_down_exps", module.act_fn(gate) * up),
                ):
                    self.add(f"{layer}{role}.weight", mats, expert, given_rows)

        return hook


@torch.no_grad()
def compare(name):
    path = os.path.join(VECTORS, "logits", f"{name}.txt")
    _, seed, config = tiny.read_vector(path)
    # Bytes that are characters of their own: their ids.
    ids = [33 + i for i in tiny.random_below(seed, "ids", CTX * CHUNKS, 90)]
    with tempfile.TemporaryDirectory() as folder:
        tiny.write_checkpoint(folder, config, seed)
        model = make_logits.load(folder)
        theirs = Inputs(model)
        for chunk in range(CHUNKS):
            model(torch.tensor([ids[chunk * CTX : (chunk + 1) * CTX]]), use_cache=False)
        text, out = os.path.join(folder, "text"), os.path.join(folder, "out.gguf")
        with open(text, "wb") as f:
            f.write(bytes(ids))
        results.marco("imatrix", "-m", folder, "-f", text, "-o", out, "--ctx", CTX, "-q")
        ours = {t.name: np.array(t.data, np.float64) for t in gguf.GGUFReader(out).tensors}
    wanted = {f"{n}.{kind}" for n in theirs.sums for kind in ("in_sum2", "counts")}
    largest, counts = 0.0, 0
    for n, sums in theirs.sums.items() if ours.keys() == wanted else ():
        difference = np.abs(ours[f"{n}.in_sum2"].reshape(sums.shape) - sums)
        largest = max(largest, (difference / sums.mean()).max())
        counts += int((ours[f"{n}.counts"].ravel() != theirs.counts[n]).sum())
    results.row(
        f"importance matrix of {name}",
        f"the same tensors and counts, sums within {BAR:g} of the tensor's mean",
        f"{len(ours.keys() ^ wanted)} tensors and {counts} counts differ, {largest:.1e}",
        ours.keys() == wanted and counts == 0 and largest <= BAR,
    )


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in sys.argv[1:] or make_logits.CASES:
        compare(name)
    results.finish()


if __name__ == "__main__":
    main()

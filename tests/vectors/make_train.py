#!/usr/bin/env python3
"""Makes tests/vectors/train/*.json: gradients and the losses of a few steps of training tiny
checkpoints (tiny.py), computed by PyTorch on transformers' models.

    python make_train.py [CASE ...]

Needs torch, transformers and numpy; README.md says which versions made the committed files. The
format is described there too.
"""

import json
import math
import os
import sys
import tempfile
import types

import torch
import transformers

import make_logits
import tiny

HERE = os.path.dirname(os.path.abspath(__file__))
ROUTER_GAP = 8e-5  # of the scores' deviation: what a seed must keep clear of, in all steps
STEPS = 20

BASE = {"vocab_size": 300, "hidden_size": 48, "intermediate_size": 72, "rms_norm_eps": 1e-5}
MOE = {
    "model_type": "qwen3_moe",
    **make_logits.MOE,
    "num_experts": 12,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 24,
    "tie_word_embeddings": True,
}
JOB = {
    "sequences": 4,  # of a step
    "seq_len": 40,
    "passes": 1,  # that a step's sequences are shared out to, in order
    "batches": 2,  # that the steps take in turn
    "examples": 1,  # that a sequence is cut into
    "masked": 0,  # one in so many tokens is no target; 0: none
    "balance": "none",
    "coefficient": 0.0,
    "bias_rate": 0.0,
    "z_loss": 0.0,
    "lr": 2e-3,
    "beta1": 0.9,
    "beta2": 0.95,
    "eps": 1e-8,
    "weight_decay": 0.1,
    "clip": 1.0,
}
# The configuration, and what is trained how.
CASES = {
    "qwen3moe": (MOE, {}),
    "qwen3moe-switch": (
        {**MOE, "norm_topk_prob": False, "num_key_value_heads": 4, "tie_word_embeddings": False},
        {"balance": "switch", "coefficient": 0.02, "z_loss": 1e-3, "passes": 2, "examples": 3},
    ),
    "qwen3moe-global": (
        {**MOE, "num_hidden_layers": 3, "decoder_sparse_step": 2, "mlp_only_layers": [2]},
        {"balance": "global", "coefficient": 0.05, "passes": 4, "masked": 3, "clip": 0.0},
    ),
    "qwen3moe-bias": (
        {**MOE, "num_key_value_heads": 1},
        {"balance": "bias", "bias_rate": 0.02, "z_loss": 2e-3, "passes": 2},
    ),
    "qwen3": (
        {"model_type": "qwen3", "head_dim": 24, "tie_word_embeddings": True},
        {"examples": 4, "masked": 4},
    ),
    "llama": (
        {
            "model_type": "llama",
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 10,
            "tie_word_embeddings": False,
        },
        {"passes": 2, "examples": 2},
    ),
    "llama-llama3": (
        make_logits.CASES["llama-llama3"],
        {"examples": 2, "masked": 5},
    ),
    "qwen3-yarn": (make_logits.CASES["qwen3-yarn"], {"examples": 2}),
    "mixtral": (
        {**make_logits.CASES["mixtral"], "intermediate_size": 40, "tie_word_embeddings": False},
        {"balance": "switch", "coefficient": 0.02, "z_loss": 1e-3, "passes": 2},
    ),
}


# ---- what is trained on --------------------------------------------------------------------------


def tokens(job, seed, vocab):
    """Adds ids, targets (-1: none) and starts (index of an example's first token in its sequence),
    each a list of numbers for all sequences of all batches."""
    n, length = job["batches"] * job["sequences"], job["seq_len"]
    ids = tiny.random_below(seed, "ids", n * (length + 1), vocab)
    drawn = tiny.random_below(seed, "masked", n * length, max(job["masked"], 1))
    cuts = tiny.random_below(seed, "cuts", n * job["examples"], length - 1)
    job["ids"], job["targets"], job["starts"] = [], [], []
    for i in range(n):
        sequence = ids[i * (length + 1) : (i + 1) * (length + 1)]
        begins = sorted(1 + cut for cut in cuts[i * job["examples"] :][: job["examples"] - 1])
        job["ids"] += sequence[:-1]
        for t in range(length):
            masked = job["masked"] and drawn[i * length + t] == 0
            job["targets"].append(-1 if masked else sequence[t + 1])
            job["starts"].append(max([0] + [b for b in begins if b <= t]))


def batch_of(job, step):
    """ids, targets, starts [sequences, seq_len] of one step."""
    shape = (job["batches"], job["sequences"], job["seq_len"])
    return [torch.tensor(job[k]).view(shape)[step % job["batches"]]
            for k in ("ids", "targets", "starts")]  # fmt: skip


# ---- routers -------------------------------------------------------------------------------------


class Routers:
    """Watches transformers' routers, adds a bias to their choice, and has the losses of their
    balance, which transformers computes differently:

    Switch, over the tokens of a pass: c * experts * sum_e (n_e / (k * T)) * mean probability of e;
    global: n_e and T of all passes of the step so far; z: c * mean of log(sum(exp(logits)))^2.
    Both are summed over the layers."""

    def __init__(self, model, job):
        self.job, self.gap = job, float("inf")
        self.routers = [m for m in model.modules() if type(m).__name__.endswith("TopKRouter")]
        for router in self.routers:
            router.bias = torch.zeros(router.num_experts)
            router.forward = types.MethodType(self.choose, router)
        self.begin_step()

    def begin_step(self):
        for router in self.routers:
            router.counts, router.tokens = torch.zeros(router.num_experts), 0

    def choose(self, router, hidden):
        """transformers' own forward but for the bias."""
        logits = torch.nn.functional.linear(hidden.reshape(-1, router.hidden_dim), router.weight)
        probs = logits.softmax(-1)
        scores = probs.detach() + router.bias
        top = scores.topk(router.top_k + 1, dim=-1)
        gap = (top.values[:, -2] - top.values[:, -1]).min() / scores.std()
        self.gap = min(self.gap, gap.item())
        chosen = top.indices[:, :-1]
        weights = probs.gather(-1, chosen)
        if getattr(router, "norm_topk_prob", True):  # Mixtral always does
            weights = weights / weights.sum(-1, keepdim=True)
        router.seen = (logits, probs, chosen)
        return logits, weights, chosen

    def losses(self):
        """Balance and z loss of the pass just run."""
        balance = z = torch.zeros(())
        for router in self.routers:
            logits, probs, chosen = router.seen
            counts = torch.bincount(chosen.flatten(), minlength=router.num_experts).float()
            router.counts += counts
            router.tokens += len(probs)
            n, t = counts, len(probs)
            if self.job["balance"] == "global":
                n, t = router.counts, router.tokens
            if self.job["balance"] in ("switch", "global"):
                share = n / (router.top_k * t)
                balance = balance + self.job["coefficient"] * router.num_experts * (
                    share * probs.mean(0)
                ).sum()
            z = z + self.job["z_loss"] * logits.logsumexp(-1).square().mean()
        return balance, z

    def end_step(self):
        if self.job["balance"] == "bias":
            for router in self.routers:
                missing = router.counts.mean() - router.counts
                router.bias += self.job["bias_rate"] * missing.sign()
        self.begin_step()


# ---- steps ---------------------------------------------------------------------------------------


def load(folder):
    return make_logits.load(folder).train()


def mask_of(starts):
    """What each token sees, to be added to scores, and its position in its example."""
    at = torch.arange(starts.shape[1])
    seen = (at[None, None, :] <= at[None, :, None]) & (at[None, None, :] >= starts[:, :, None])
    mask = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))
    return mask[:, None], at[None, :] - starts


def backward(model, routers, job, step):
    """One step's losses: cross-entropy a target, balance and z loss. Gradients are added up."""
    ids, targets, starts = batch_of(job, step)
    n_targets = (targets >= 0).sum()
    losses = [0.0, 0.0, 0.0]
    for part in range(job["passes"]):
        size = job["sequences"] // job["passes"]
        rows = slice(part * size, (part + 1) * size)
        mask, positions = mask_of(starts[rows])
        logits = model(ids[rows], attention_mask=mask, position_ids=positions, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets[rows].flatten(), ignore_index=-1, reduction="sum"
        ) / n_targets
        balance, z = (x / job["passes"] for x in routers.losses())
        (loss + balance + z).backward()
        losses = [a + b.item() for a, b in zip(losses, (loss, balance, z))]
    return losses


def optimizer_of(model, job):
    """AdamW whose decay leaves out norms, embeddings and the output's matrix."""
    plain, others = [], []
    for name, p in model.named_parameters():
        bare = p.dim() == 1 or "embed_tokens" in name or "lm_head" in name
        (plain if bare else others).append(p)
    return torch.optim.AdamW(
        [{"params": plain, "weight_decay": 0.0},
         {"params": others, "weight_decay": job["weight_decay"]}],
        lr=job["lr"], betas=(job["beta1"], job["beta2"]), eps=job["eps"],
    )  # fmt: skip


def update(model, routers, optimizer, job):
    """Takes a step; the gradient's norm."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), job["clip"] or float("inf"))
    optimizer.step()
    optimizer.zero_grad()
    routers.end_step()
    return norm.item()


def gradients(model):
    """By the names that tensors have in checkpoints: transformers fuses experts."""
    out = {}
    for name, parameter in model.named_parameters():
        grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        if name.endswith(".experts.gate_up_proj"):
            prefix = name.removesuffix(".gate_up_proj")
            for e, matrix in enumerate(grad):
                gate, up = matrix.chunk(2)
                out[f"{prefix}.{e}.gate_proj.weight"] = gate.clone()
                out[f"{prefix}.{e}.up_proj.weight"] = up.clone()
        elif name.endswith(".experts.down_proj"):
            prefix = name.removesuffix(".down_proj")
            for e, matrix in enumerate(grad):
                out[f"{prefix}.{e}.down_proj.weight"] = matrix.clone()
        else:
            out[name] = grad.clone()
    if model.config.model_type == "mixtral":
        out = {mixtral_name(name): grad for name, grad in out.items()}
    return out


def mixtral_name(name):
    for ours, theirs in ((".mlp.", ".block_sparse_moe."), (".gate_proj.", ".w1."),
                         (".down_proj.", ".w2."), (".up_proj.", ".w3.")):  # fmt: skip
        name = name.replace(ours, theirs)
    return name


def train(folder, job):
    """The first step's gradients; losses [steps][3], norms, and the routers' smallest gap."""
    model = load(folder)
    routers, optimizer = Routers(model, job), optimizer_of(model, job)
    first, losses, norms = None, [], []
    for step in range(job["steps"]):
        losses.append(backward(model, routers, job, step))
        first = first or gradients(model)
        norms.append(update(model, routers, optimizer, job))
    return first, losses, norms, routers.gap


# ---- files ---------------------------------------------------------------------------------------


def configuration(name):
    return make_logits.configuration({**BASE, **CASES[name][0]})


def job_of(name, seed):
    job = {**JOB, "steps": STEPS, **CASES[name][1]}
    tokens(job, seed, configuration(name)["vocab_size"])
    return job


def digest(name, grad, seed):
    """The norm, and products with two vectors uniform in [-1, 1), so that no element's fault goes
    unseen."""
    flat = grad.flatten().double()
    numbers = [flat.norm().item()]
    for k in (1, 2):
        unit = torch.from_numpy(tiny.random_unit(seed + k, tiny.stream_of(name), len(flat)))
        numbers.append((flat * (2 * unit - 1)).sum().item())
    return [float(f"{x:.7g}") for x in numbers]


def make(name):
    config = configuration(name)
    for seed in range(1, 1000):
        job = job_of(name, seed)
        with tempfile.TemporaryDirectory() as folder:
            tiny.write_checkpoint(folder, config, seed)
            first, losses, norms, gap = train(folder, job)
        print(f"  seed {seed}: loss {losses[0][0]:.3f} to {losses[-1][0]:.3f}, norms "
              f"{min(norms):.3f} to {max(norms):.3f}, router gap {gap:.2e}", flush=True)  # fmt: skip
        if gap > ROUTER_GAP:
            break
    columns = [[float(f"{x:.8g}") for x in column] for column in (*zip(*losses), norms)]
    versions = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"
    vector = {
        "case": name,
        "made with": versions,
        "router gap": "none" if math.isinf(gap) else f"{gap:.2e}",
        "seed": seed,
        "config": config,
        "job": job,
        "gradients": {n: digest(n, g, seed) for n, g in first.items()},
        **dict(zip(("loss", "balance", "z", "norm"), columns)),
    }
    lines = ",\n".join(f"{json.dumps(key)}: {_value(key, value)}" for key, value in vector.items())
    with open(os.path.join(HERE, "train", f"{name}.json"), "w", encoding="utf-8") as f:
        f.write("{\n" + lines + "\n}\n")


def _value(key, value):
    if key != "gradients":
        return json.dumps(value)
    lines = (f"{json.dumps(name)}: {json.dumps(numbers)}" for name, numbers in value.items())
    return "{\n" + ",\n".join(lines) + "\n}"


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in sys.argv[1:] or CASES:
        print(name, flush=True)
        make(name)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Makes tests/vectors/logits/*.txt: what transformers computes on tiny checkpoints (tiny.py).

    python make_logits.py [CASE ...]

Needs torch, transformers and numpy; README.md says which versions made the committed files. The
format is described there too.
"""

import json
import os
import sys
import tempfile

import torch
import transformers

import tiny

HERE = os.path.dirname(os.path.abspath(__file__))
LENGTHS = (300, 176, 40)  # of the sequences fed, positions in all: 516
PROMPT, GREEDY = 12, 64
SAMPLES = 4  # logits kept of each position, at ids that change with it
ROUTER_GAP = 1e-5  # of the router logits' deviation: what a seed must keep clear of
TOP_GAP = 1e-4  # of the logits' deviation
DISTINCT = 20  # different ids wanted among the greedy ones

BASE = {
    "vocab_size": 384,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "attention_bias": False,
    "bos_token_id": 256,
    "eos_token_id": 258,
    "torch_dtype": "float32",
}
KINDS = {
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "mixtral": "MixtralForCausalLM",
}
MOE = {"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True}

# A value None leaves the key out, so that the architecture's own default counts.
CASES = {
    "qwen3moe-256": {
        "model_type": "qwen3_moe",
        **MOE,
        "num_experts": 256,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 32,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
    },
    "qwen3moe-232": {
        "model_type": "qwen3_moe",
        **MOE,
        "num_experts": 232,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 24,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
    },
    "qwen3moe-plain-topk": {
        "model_type": "qwen3_moe",
        **MOE,
        "norm_topk_prob": False,
        "num_experts": 32,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 32,
        "num_key_value_heads": 4,
        "vocab_size": 320,
        "tie_word_embeddings": False,
    },
    "qwen3moe-dense-layers": {
        "model_type": "qwen3_moe",
        "decoder_sparse_step": 2,
        "mlp_only_layers": [1],
        "num_experts": 16,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 32,
        "num_hidden_layers": 6,
        "rope_theta": None,
        "rope_scaling": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0},
        "torch_dtype": None,
        "dtype": "float32",
        "tie_word_embeddings": True,
    },
    "qwen3": {
        "model_type": "qwen3",
        "num_hidden_layers": 3,
        "head_dim": 32,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
    },
    "qwen3-yarn": {
        "model_type": "qwen3",
        "num_attention_heads": 8,
        "max_position_embeddings": 512,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 128,
        },
        "vocab_size": 320,
    },
    "llama": {
        "model_type": "llama",
        "hidden_size": 72,
        "intermediate_size": 100,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": None,
        "num_hidden_layers": 3,
        "rms_norm_eps": 1e-05,
        "rope_theta": 100000.0,
        "mlp_bias": False,
        "tie_word_embeddings": True,
    },
    "llama-linear": {
        "model_type": "llama",
        "num_key_value_heads": 4,
        "rope_scaling": {"type": "linear", "factor": 2.5},
        "vocab_size": 320,
        "tie_word_embeddings": False,
    },
    "llama-llama3": {
        "model_type": "llama",
        "num_key_value_heads": 1,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        },
        "vocab_size": 320,
        "tie_word_embeddings": True,
    },
    "mixtral": {
        "model_type": "mixtral",
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 3,
        "rms_norm_eps": 1e-05,
        "sliding_window": None,
        "vocab_size": 320,
    },
    "mixtral-tied": {
        "model_type": "mixtral",
        "num_local_experts": 12,
        "num_experts_per_tok": 3,
        "intermediate_size": 40,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
    },
}


def configuration(case):
    config = {"architectures": [KINDS[case["model_type"]]], **BASE, **case}
    return {
        key: value
        for key, value in config.items()
        if value is not None or key in ("rope_scaling", "sliding_window") and key in case
    }


def load(folder):
    model, found = transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
        output_loading_info=True,
    )
    # transformers makes up what a checkpoint lacks.
    wrong = {kind: names for kind, names in found.items() if names}
    if wrong:
        raise SystemExit(f"{folder}: {wrong}")
    return model.eval()


class Routers:
    """The smallest gap between the k-th and the next expert, of the logits' deviation, so far."""

    def __init__(self, model):
        self.gap = float("inf")
        for module in model.modules():
            if type(module).__name__.endswith("TopKRouter"):
                module.register_forward_hook(self.look)

    def look(self, module, _, output):
        logits = output[0].double()
        top = logits.topk(module.top_k + 1, dim=-1).values
        gap = (top[:, -2] - top[:, -1]).min() / logits.std()
        self.gap = min(self.gap, gap.item())


def top_gap(logits):
    top = logits.topk(2, dim=-1).values
    return (top[..., 0] - top[..., 1]).min().item()


@torch.no_grad()
def compute(model, prompt, sequences):
    """Logits of each sequence, greedy ids after the prompt and their smallest top-2 gap."""
    outputs = [model(torch.tensor([ids]), use_cache=False).logits[0].double() for ids in sequences]
    ids, gap = list(prompt), float("inf")
    for _ in range(GREEDY):
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1].double()
        gap = min(gap, top_gap(logits))
        ids.append(int(logits.argmax()))
    return outputs, ids[len(prompt) :], gap


def try_seed(config, seed):
    vocab = config["vocab_size"]
    ids = tiny.random_below(seed, "ids", sum(LENGTHS) + PROMPT, vocab)
    sequences = []
    for length in LENGTHS:
        sequences.append(ids[:length])
        ids = ids[length:]
    with tempfile.TemporaryDirectory() as folder:
        tiny.write_checkpoint(folder, config, seed)
        model = load(folder)
    routers = Routers(model)
    outputs, greedy, gap = compute(model, ids, sequences)
    every = torch.cat(outputs)
    deviation = every.std().item()
    gap = min(gap, top_gap(every)) / deviation
    good = routers.gap > ROUTER_GAP and gap > TOP_GAP and len(set(greedy)) >= DISTINCT
    print(
        f"  seed {seed}: deviation {deviation:.3f}, router gap {routers.gap:.2e}, "
        f"top gap {gap:.2e}, {len(set(greedy))} different greedy ids, "
        f"{len(set(every.argmax(-1).tolist()))} different likeliest ids",
        flush=True,
    )
    return good and (sequences, outputs, ids, greedy, deviation, routers.gap, gap)


def wrapped(ids):
    return "\n".join(" ".join(map(str, ids[i : i + 20])) for i in range(0, len(ids), 20))


def position(logits, ids):
    numbers = [logits.max(), logits.logsumexp(-1), *(logits[i] for i in ids)]
    return " ".join([str(int(logits.argmax())), *(f"{x.item():.5f}" for x in numbers)])


def write(name, config, seed, result):
    sequences, outputs, prompt, greedy, deviation, router_gap, gap = result
    samples = tiny.random_below(seed, "samples", SAMPLES * sum(LENGTHS), config["vocab_size"])
    versions = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"
    lines = [
        f"# {versions}; see ../README.md. Smallest gap at the k-th expert {router_gap:.2e}",
        f"# of the router logits' deviation, between the two likeliest ids {gap:.2e} of the logits'.",
        f"case {name}",
        f"seed {seed}",
        "config",
        json.dumps(config, indent=1),
        "end",
        f"deviation {deviation:.6f}",
        f"samples {SAMPLES}",
    ]
    done = 0
    for ids, logits in zip(sequences, outputs):
        lines += [f"sequence {len(ids)}", wrapped(ids)]
        lines.append("# likeliest id, its logit, log of the sum of exp, logits at sampled ids")
        for row in logits:
            lines.append(position(row, samples[SAMPLES * done : SAMPLES * (done + 1)]))
            done += 1
    lines += [f"greedy {len(prompt)} {len(greedy)}", wrapped(prompt), wrapped(greedy)]
    path = os.path.join(HERE, "logits", f"{name}.txt")
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in sys.argv[1:] or CASES:
        print(name, flush=True)
        config = configuration(CASES[name])
        result = seed = 0
        while not result:
            seed += 1
            result = try_seed(config, seed)
        write(name, config, seed, result)


if __name__ == "__main__":
    main()

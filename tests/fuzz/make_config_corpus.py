#!/usr/bin/env python3
"""Writes the seeds of fuzz_config: configurations as JSON and as GGUF metadata, valid and hostile.

Needs nothing but Python; what it writes is committed.
"""

import json
import struct
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus" / "config"
SIZES = {"vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
         "num_key_value_heads": 2}
DENSE = {**SIZES, "intermediate_size": 96}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64,
        "mscale": 1.0, "mscale_all_dim": 0.7, "beta_fast": 32, "beta_slow": 1}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 512, "rope_theta": 500000.0}
CONFIGS = {
    "qwen3moe": {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", **SIZES,
                 "num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 32,
                 "intermediate_size": 96, "decoder_sparse_step": 2, "mlp_only_layers": [3],
                 "norm_topk_prob": True, "tie_word_embeddings": True, "head_dim": 16},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], **DENSE, "rope_scaling": YARN,
              "layer_types": ["full_attention"] * 4, "use_sliding_window": False},
    "llama": {"model_type": "llama", **DENSE, "rope_parameters": LLAMA3, "eos_token_id": [2, 3]},
    "mixtral": {"architectures": ["MixtralForCausalLM"], **DENSE, "num_local_experts": 8,
                "sliding_window": None},
    "linear": {"model_type": "llama", **DENSE, "rope_theta": 1e5,
               "rope_scaling": {"type": "linear", "factor": 2.5}},
    "huge": {"model_type": "llama", **DENSE, "vocab_size": 2**40, "num_hidden_layers": 2**62},
    "contradiction": {"architectures": ["LlamaForCausalLM"], "model_type": "qwen3", **DENSE},
    "window": {"model_type": "qwen3_moe", **SIZES, "use_sliding_window": True},
}
GENERATION = {"eos_token_id": [5, 6], "do_sample": True, "temperature": 0.6, "top_p": 0.95,
              "top_k": 20, "min_p": 0.0, "repetition_penalty": 1.05, "pad_token_id": 5}


def string(text):
    return struct.pack("<Q", len(text)) + text.encode()


def pair(key, value):
    if isinstance(value, str):
        return string(key) + struct.pack("<I", 8) + string(value)
    if isinstance(value, float):
        return string(key) + struct.pack("<If", 6, value)
    if isinstance(value, bool):
        return string(key) + struct.pack("<IB", 7, value)
    if isinstance(value, list):
        return string(key) + struct.pack("<IIQ", 9, 5, len(value)) + struct.pack(
            f"<{len(value)}i", *value)
    return string(key) + struct.pack("<II", 4, value)


def gguf(pairs):
    """Metadata and an embedding of 10 rows."""
    data = b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs))
    data += b"".join(pair(k, v) for k, v in pairs.items())
    data += string("token_embd.weight") + struct.pack("<IQQIQ", 2, 4, 10, 0, 0)
    return data + bytes(-len(data) % 32) + bytes(160)


def metadata(arch, **more):
    return {"general.architecture": arch, "general.name": "seed",
            **{f"{arch}.{key}": value for key, value in {
                "block_count": 2, "context_length": 64, "embedding_length": 4,
                "feed_forward_length": 8, "attention.head_count": 2,
                "attention.head_count_kv": 1, "attention.layer_norm_rms_epsilon": 1e-6,
                "rope.freq_base": 10000.0}.items()}, **more}


def seeds():
    for name, config in CONFIGS.items():
        yield name, json.dumps(config).encode()
    both = json.dumps(CONFIGS["qwen3moe"]) + "\0" + json.dumps(GENERATION)
    yield "generation", both.encode()
    yield "deep", b'{"a":' * 300 + b"1" + b"}" * 300
    yield "gguf_llama", gguf(metadata("llama", **{"marco.eos_token_ids": [1, 2]}))
    experts = {"qwen3moe.expert_count": 4, "qwen3moe.expert_used_count": 2,
               "qwen3moe.expert_feed_forward_length": [8, 8], "general.sampling.temp": 0.6}
    yield "gguf_qwen3moe", gguf(metadata("qwen3moe", **experts))
    yarn = {"qwen3.rope.scaling.type": "yarn", "qwen3.rope.scaling.factor": 4.0,
            "qwen3.rope.scaling.original_context_length": 32}
    yield "gguf_yarn", gguf(metadata("qwen3", **yarn))
    yield "gguf_unknown", gguf(metadata("llama", **{"llama.logit_scale": 2.0}))


FOLDER.mkdir(parents=True, exist_ok=True)
for seed, content in seeds():
    (FOLDER / seed).write_bytes(content)

"""Tiny checkpoints whose weights are a formula, so that a test in C makes the very same ones.

A weight is base_random_unit(seed, stream, index) (src/base/random.c) stretched to a range, with
the stream the 64-bit FNV-1a hash of the tensor's Hugging Face name and the index its position in
the tensor. tests/unit/tiny_checkpoint.c is this file's twin: change both or neither.
"""

import json
import math
import os
import struct

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def stream_of(name):
    """FNV-1a, 64 bits."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    return h


def random_u64(seed, stream, n):
    """base_random_u64(seed, stream, 0 .. n - 1)."""
    with np.errstate(over="ignore"):
        seed = np.array([seed], np.uint64)
        stream = np.array([stream], np.uint64)
        key = _mix(seed + GOLDEN) ^ _mix(stream * GOLDEN + np.uint64(1))
        return _mix(key + (np.arange(n, dtype=np.uint64) + np.uint64(1)) * GOLDEN)


def random_unit(seed, stream, n):
    return (random_u64(seed, stream, n) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def random_below(seed, name, n, limit):
    """n integers below limit, from the stream of that name."""
    return [int(x) * limit >> 64 for x in random_u64(seed, stream_of(name), n)]


# Chosen so that attention and routers are far from uniform and every layer matters: the standard
# deviation of a matrix's outputs for inputs of deviation 1.
GAINS = {"lm_head": 2.0, "down_proj": 3.0, "w2": 3.0, "gate": 2.0}
DEFAULT_GAIN = 1.5
EMBEDDING_RANGE = 0.5
NORM_RANGE = 0.25


def weight(name, shape, seed):
    """The tensor of that name, float32."""
    n = math.prod(shape)
    unit = 2.0 * random_unit(seed, stream_of(name), n) - 1.0
    part = name.split(".")[-2]
    if part.endswith("norm"):
        values = 1.0 + NORM_RANGE * unit
    elif part == "embed_tokens":
        values = EMBEDDING_RANGE * unit
    else:
        values = GAINS.get(part, DEFAULT_GAIN) * math.sqrt(3.0 / shape[-1]) * unit
    # np.sqrt, division and products are correctly rounded, as C's are.
    return values.astype(np.float32).reshape(shape)


def sparse(config, layer):
    if config["model_type"] == "mixtral":
        return True
    if config["model_type"] != "qwen3_moe":
        return False
    step = config.get("decoder_sparse_step", 1)
    return layer not in config.get("mlp_only_layers", []) and (layer + 1) % step == 0


def _mlp(prefix, names, hidden, inner):
    gate, up, down = names
    yield f"{prefix}.{gate}.weight", (inner, hidden)
    yield f"{prefix}.{up}.weight", (inner, hidden)
    yield f"{prefix}.{down}.weight", (hidden, inner)


def shapes(config):
    """(name, shape) of every tensor of a configuration."""
    kind, hidden, vocab = config["model_type"], config["hidden_size"], config["vocab_size"]
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    head = config.get("head_dim") or hidden // heads
    plain = ("gate_proj", "up_proj", "down_proj")
    yield "model.embed_tokens.weight", (vocab, hidden)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        attn = f"{layer}.self_attn"
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{attn}.q_proj.weight", (heads * head, hidden)
        yield f"{attn}.k_proj.weight", (kv * head, hidden)
        yield f"{attn}.v_proj.weight", (kv * head, hidden)
        yield f"{attn}.o_proj.weight", (hidden, heads * head)
        if kind.startswith("qwen3"):
            yield f"{attn}.q_norm.weight", (head,)
            yield f"{attn}.k_norm.weight", (head,)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
        if not sparse(config, i):
            yield from _mlp(f"{layer}.mlp", plain, hidden, config["intermediate_size"])
            continue
        if kind == "mixtral":
            block, names = f"{layer}.block_sparse_moe", ("w1", "w3", "w2")
            experts, inner = config["num_local_experts"], config["intermediate_size"]
        else:
            block, names = f"{layer}.mlp", plain
            experts, inner = config["num_experts"], config["moe_intermediate_size"]
        yield f"{block}.gate.weight", (experts, hidden)
        for e in range(experts):
            yield from _mlp(f"{block}.experts.{e}", names, hidden, inner)
    yield "model.norm.weight", (hidden,)
    if not config.get("tie_word_embeddings", False):
        yield "lm_head.weight", (vocab, hidden)


def write_safetensors(path, config, seed):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes(config):
        size = 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes(config):
            f.write(weight(name, shape, seed).tobytes())


def byte_spelling():
    """GPT-2's printable character for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    spelling = {b: chr(b) for b in plain}
    spelling.update({b: chr(256 + i) for i, b in enumerate(others)})
    return spelling


QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def write_tokenizer(folder):
    """256 bytes and three special tokens, in Qwen2's form."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": 256 + i, "content": text, **flags, "special": True}
        for i, text in enumerate(specials)
    ]
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
    split = {
        "type": "Split",
        "pattern": {"Regex": QWEN2_PATTERN},
        "behavior": "Isolated",
        "invert": False,
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {character: byte for byte, character in sorted(byte_spelling().items())},
            "merges": [],
        },
    }
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_bos_token": False,
        "bos_token": None,
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
    }
    _write_json(os.path.join(folder, "tokenizer.json"), tokenizer)
    _write_json(os.path.join(folder, "tokenizer_config.json"), settings)


def _write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1, ensure_ascii=False)
        f.write("\n")


def write_checkpoint(folder, config, seed):
    """A Hugging Face folder."""
    os.makedirs(folder, exist_ok=True)
    _write_json(os.path.join(folder, "config.json"), config)
    write_tokenizer(folder)
    write_safetensors(os.path.join(folder, "model.safetensors"), config, seed)


def read_vector(path):
    """The head of a file in tests/vectors/logits: its name, seed and configuration."""
    with open(path, encoding="utf-8") as f:
        lines = [line for line in f.read().split("\n") if not line.startswith("#")]
    begin, end = lines.index("config"), lines.index("end")
    words = dict(line.split(" ", 1) for line in lines[:begin] if line)
    return words["case"], int(words["seed"]), json.loads("\n".join(lines[begin + 1 : end]))

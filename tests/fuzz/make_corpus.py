#!/usr/bin/env python3
"""Writes the seeds of the format fuzzers: tiny GGUF, safetensors and importance files and shards
of token ids, valid and hostile.

Needs nothing but Python; what it writes is committed.
"""

import json
import struct
from pathlib import Path

HERE = Path(__file__).parent / "corpus"
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
PACK = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B",
        U64: "Q", I64: "q", F64: "d"}


def string(s):
    data = s.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, v):
    return string(v) if kind == STRING else struct.pack("<" + PACK[kind], v)


def pair(key, kind, v):
    return string(key) + struct.pack("<I", kind) + value(kind, v)


def array(key, kind, items, n=None):
    body = b"".join(value(kind, item) for item in items)
    count = len(items) if n is None else n
    return string(key) + struct.pack("<IIQ", ARRAY, kind, count) + body


def tensor(name, kind, dims, offset):
    return (string(name) + struct.pack("<I", len(dims)) +
            b"".join(struct.pack("<Q", d) for d in dims) + struct.pack("<IQ", kind, offset))


def gguf(pairs, tensors, data=b"", version=3, alignment=32, n_pairs=None, n_tensors=None):
    head = b"GGUF" + struct.pack(
        "<IQQ", version, len(tensors) if n_tensors is None else n_tensors,
        len(pairs) if n_pairs is None else n_pairs) + b"".join(pairs) + b"".join(tensors)
    if tensors:
        head += bytes(-len(head) % alignment)
    return head + data


def gguf_seeds():
    scalars = [pair(name.lower(), kind, 1) for name, kind in
               [("U8", U8), ("I8", I8), ("U16", U16), ("I16", I16), ("U32", U32), ("I32", I32),
                ("F32", F32), ("BOOL", BOOL), ("U64", U64), ("I64", I64), ("F64", F64)]]
    pairs = scalars + [pair("general.architecture", STRING, "qwen3moe"),
                       array("strings", STRING, ["", "two", "\u00e9"]),
                       array("ints", I32, [1, -2, 3]), array("bools", BOOL, [0, 1])]
    two = [tensor("a.weight", 0, [4, 2], 0), tensor("b.weight", 8, [32, 1], 32)]
    one = [tensor("t", 0, [1], 0)]
    aligned = [pair("general.alignment", U32, 64)]
    return {
        "valid": gguf(pairs, two, bytes(range(66))),
        "valid_v2": gguf(pairs, two, bytes(range(66)), version=2),
        "valid_alignment": gguf(aligned, one, bytes(4), alignment=64),
        "valid_empty": gguf([], []),
        "version_1": gguf([], [], version=1),
        "big_endian": gguf([], [], version=0x03000000),
        "count_pairs": gguf([], [], n_pairs=2**64 - 1),
        "count_tensors": gguf([], [], n_tensors=2**63),
        "count_strings": gguf([array("s", STRING, ["a"], n=2**60 + 1)], []),
        "count_numbers": gguf([array("n", U64, [1], n=2**61)], []),
        "twin_keys": gguf([pair("k", U8, 1), pair("k", U8, 1)], []),
        "twin_tensors": gguf([], one + one, bytes(4)),
        "overlap": gguf([], [tensor("a", 0, [9], 0), tensor("b", 0, [1], 32)], bytes(36)),
        "dims": gguf([], [tensor("t", 0, [2**32, 2**32], 0)], bytes(32)),
        "offset": gguf([], [tensor("t", 0, [1], 2**64 - 32)], bytes(32)),
        "bool": gguf([pair("flag", BOOL, 2)], []),
        "nested": gguf([string("n") + struct.pack("<IIQ", ARRAY, ARRAY, 1) + bytes(12)], []),
        "alignment": gguf([pair("general.alignment", U32, 2**31)], one, bytes(4)),
    }


def safetensors(header, data=b"", size=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors_seeds():
    a, b = entry("F32", [1], 0, 4), entry("BF16", [2, 1], 4, 8)
    index = {"metadata": {"total_size": 6},
             "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    return {
        "valid": safetensors({"__metadata__": {"format": "pt"}, "a": a, "b": b}, bytes(8)),
        "valid_scalar": safetensors({"s": entry("F16", [], 0, 2)}, bytes(2)),
        "valid_empty": safetensors({}),
        "length": safetensors({}, size=2**63),
        "overlap": safetensors({"a": a, "b": entry("F32", [1], 2, 6)}, bytes(6)),
        "hole": safetensors({"a": a, "b": entry("F32", [1], 8, 12)}, bytes(12)),
        "negative": safetensors({"a": entry("F32", [1], -4, 0)}, bytes(4)),
        "reversed": safetensors({"a": entry("F32", [1], 4, 0)}, bytes(4)),
        "mismatch": safetensors({"a": entry("F32", [2], 0, 4)}, bytes(4)),
        "overflow": safetensors({"a": entry("F32", [2**32, 2**32], 0, 4)}, bytes(4)),
        "dtype": safetensors({"a": entry("I64", [1], 0, 8)}, bytes(8)),
        "real": safetensors({"a": entry("F32", [1.0], 0, 4)}, bytes(4)),
        "twins": safetensors(b'{"a":{},"a":{}}'),
        "deep": safetensors(b'{"a":' + b"[" * 3000),
        "index": json.dumps(index).encode(),
        "index_traversal": json.dumps({"weight_map": {"a": "../one.safetensors"}}).encode(),
        "index_missing": json.dumps({"weight_map": {"a": "three.safetensors"}}).encode(),
        "index_extra": json.dumps({"weight_map": {"a": "two.safetensors"}}).encode(),
    }


def plain_entry(name, values, calls=2, n=None, length=None):
    data = name.encode()
    return (struct.pack("<i", len(data) if length is None else length) + data +
            struct.pack("<ii", calls, len(values) if n is None else n) +
            struct.pack(f"<{len(values)}f", *values))


def imatrix_seeds():
    a, b = plain_entry("a", [1, 2, 3]), plain_entry("b.weight", [0.5] * 4, calls=0)
    one = struct.pack("<i", 1)
    sums = struct.pack("<4f", 1, 2, 3, 4) + bytes(16) + struct.pack("<2f", 5, 0)
    meta = [pair("general.type", STRING, "imatrix"), array("imatrix.datasets", STRING, ["text"]),
            pair("imatrix.chunk_count", U32, 7), pair("imatrix.chunk_size", U32, 512)]
    pairs = [tensor("a.in_sum2", 0, [2, 2], 0), tensor("a.counts", 0, [1, 2], 32)]
    return {
        "plain": struct.pack("<i", 2) + a + b + struct.pack("<ii", 7, 4) + b"text",
        "plain_oldest": struct.pack("<i", 2) + a + b,
        "plain_count": struct.pack("<i", 2**31 - 1) + a,
        "plain_values": one + plain_entry("a", [1] * 4, n=2**30),
        "plain_name": one + plain_entry("a", [1] * 4, length=-1),
        "plain_twins": struct.pack("<i", 2) + a + a,
        "plain_nan": one + plain_entry("a", [float("nan")]),
        "gguf": gguf(meta, pairs, sums),
        "gguf_alone": gguf(meta, pairs[:1], sums[:16]),
        "gguf_mismatch": gguf(meta, [pairs[0], tensor("a.counts", 0, [1, 1], 32)], sums[:36]),
    }


def shard(documents, targets=None, vocab=300, version=1, offsets=None, counts=None):
    ids = [i for document in documents for i in document]
    ends = [sum(map(len, documents[:i])) for i in range(len(documents) + 1)]
    body = struct.pack(f"<{len(ids)}i", *ids)
    body += bytes(-len(body) % 8) + struct.pack(f"<{len(ends)}Q", *(offsets or ends))
    if targets:
        body += bytes(targets) + bytes(-len(targets) % 8)
    return (b"MARCOIDS" + struct.pack("<4I", version, targets is not None, vocab, 0) + bytes(40) +
            body + struct.pack("<2Q", *(counts or (len(documents), len(ids)))) + b"SDIOCRAM")


def data_seeds():
    two = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [20]]
    return {
        "text": shard(two),
        "chat": shard(two, targets=[0, 0, 1, 1] + [0] * 7),
        "large_id": shard([[300] * 9]),
        "negative_id": shard([[-1] * 9]),
        "offsets": shard(two, offsets=[0, 2**63, 11]),
        "counts": shard(two, counts=(2**61, 2**62)),
        "version": shard(two, version=2),
        "vocab": shard(two, vocab=0),
        "empty": shard([]),
    }


for folder, seeds in (("gguf", gguf_seeds()), ("data", data_seeds()), ("safetensors", safetensors_seeds()),
                      ("imatrix", imatrix_seeds())):
    (HERE / folder).mkdir(parents=True, exist_ok=True)
    for name, content in seeds.items():
        (HERE / folder / name).write_bytes(content)

#!/usr/bin/env python3
"""Writes blocks/TYPE.txt: what the gguf package makes of blocks of every type.

    pip install gguf numpy
    python3 make_blocks.py

Lines come in pairs. "decode" gives the bytes of one or more blocks in hex, "encode" gives numbers;
the line after it starts with "=" and gives the numbers, or the bytes, that they turn into. Numbers
are decimal with enough digits to be exact."""

import os

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import quants

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "blocks")

# Where the F16 scales of a block lie.
SCALES = {
    T.Q8_0: [0], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
    T.IQ4_NL: [0], T.IQ4_XS: [0],
}
ENCODED = [T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1]


def blocks(kind, rng):
    _, size = gguf.GGML_QUANT_SIZES[kind]

    def block(fill, scale):
        data = np.array(fill, dtype=np.uint8) if not np.isscalar(fill) else np.full(size, fill, np.uint8)
        for i, at in enumerate(SCALES[kind]):
            data[at : at + 2] = np.array([scale * (1 if i == 0 else -0.75)], np.float16).view(np.uint8)
        return data

    for scale in (0.0123, -0.7):
        yield block(rng.integers(0, 256, size), scale)
    yield block(255, 65504)            # the largest finite scale
    yield block(128, 2.0**-24)         # the smallest
    yield block(rng.integers(0, 256, size), 0)
    if size < 40:
        for _ in range(4):
            yield block(rng.integers(0, 256, size), rng.normal())
        yield block(rng.integers(0, 256, size), np.inf)
        yield block(0x55, np.nan)


def rows(rng):
    """Rows of 32 numbers to encode."""
    for scale in (1, 0.02, 1e-5, 3e4, 1e30, 1e-36):
        yield rng.normal(size=32) * scale
    yield np.zeros(32)
    yield -np.abs(rng.normal(size=32))
    yield np.where(np.arange(32) % 2, 1.0, -1.0)          # a tie for the largest magnitude
    yield np.concatenate([[127], np.arange(31) - 15.5])   # halves, to be rounded away from zero
    yield np.concatenate([[-127], np.arange(31) * 4 + 0.49999997])
    yield np.concatenate([[65504 * 127], rng.normal(size=31) * 1e6])


def numbers(values):
    return " ".join("%.9g" % v for v in values)


def write(kind, lines):
    with open(os.path.join(FOLDER, kind.name + ".txt"), "w") as f:
        f.write(f"# {kind.name}: made by make_blocks.py with gguf.quants\n")
        f.write("\n".join(lines) + "\n")


def main():
    np.seterr(all="ignore")
    os.makedirs(FOLDER, exist_ok=True)
    rng = np.random.default_rng(20240607)
    for kind in SCALES:
        lines = []
        for block in blocks(kind, rng):
            values = quants.dequantize(block.reshape(1, -1), kind)[0]
            lines += ["decode " + block.tobytes().hex(), "= " + numbers(values)]
        if kind in ENCODED:
            for row in rows(rng):
                row = row.astype(np.float32).reshape(1, -1)
                coded = quants.quantize(row, kind)
                lines += ["encode " + numbers(row[0]), "= " + coded.tobytes().hex()]
        write(kind, lines)

    # The 16-bit floats: every kind of number, and the boundaries between them.
    bits = [0, 1, 2, 0x3FF, 0x400, 0x401, 0x3555, 0x3C00, 0x3C01, 0x7BFF, 0x7C00, 0x7E00]
    bits = np.array(bits + [b | 0x8000 for b in bits], np.uint16)
    tiny = 2.0**-24
    floats = [0, 1, 1 / 3, tiny, tiny / 2, tiny / 2 * 1.0001, tiny * 1.5, 2.0**-14 - tiny / 2,
              2.0**-14, 1 + 2.0**-11, 1 + 3 * 2.0**-11, 65504, 65519.996, 65520, 1e38, 3.4e38,
              1e-40, np.inf]
    floats = np.array(floats + [-f for f in floats], np.float32)
    for kind in (T.F16, T.BF16):
        values = quants.dequantize(bits.reshape(1, -1).view(np.uint8), kind)[0]
        coded = quants.quantize(floats.reshape(1, -1), kind)
        write(kind, ["decode " + bits.tobytes().hex(), "= " + numbers(values),
                     "encode " + numbers(floats), "= " + coded.tobytes().hex()])


main()

"""Makes tests/vectors/tokens/: a small tokenizer, and texts with the ids HF's tokenizers gives.

    python make_tokens.py DATA [--train]

DATA is a folder with udhr/*.txt (the Universal Declaration of Human Rights, a language a file) and
qwen3-tokenizer/tokenizer.json. --train makes small/tokenizer.json anew; otherwise it is taken as it
is. A record of lines.jsonl:

    text      what is encoded, special tokens recognised
    ids       by small/tokenizer.json; a digest where there are many
    plain     digest of the ids by the same vocabulary with SmolLM2's pipeline: no normaliser,
              digits one by one, GPT-2's pattern, added tokens none
    qwen3     digest of the ids by Qwen3's tokenizer

whole.json has the same digests for all these texts as one, with newlines between.

A digest is "COUNT:HASH", FNV-1a over the ids as little-endian 32-bit integers.
"""

import json
import pathlib
import struct
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers

import token_lines

OUT = pathlib.Path(__file__).parent / "tokens"
MOST_IDS = 32
N_LINES = 2400
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
ADDED = [
    AddedToken("<|endoftext|>", special=True, normalized=False),
    AddedToken("<|im_start|>", special=True, normalized=False),
    AddedToken("<|im_end|>", special=True, normalized=False),
    AddedToken("<|im_start|>user", special=True, normalized=False),  # the longer one wins
    AddedToken("[MASK]", special=True, normalized=False, lstrip=True),
    AddedToken("<r>", special=True, normalized=True, rstrip=True),
    AddedToken("<tool_call>", special=False, normalized=False),
    AddedToken("word", special=False, normalized=True, single_word=True),
    AddedToken("\u00e9t\u00e9", special=False, normalized=True),
    AddedToken("A\u030ang", special=False, normalized=True),  # matches once it is normalised
    AddedToken("<|both|>", special=False, normalized=False, lstrip=True, rstrip=True),
    AddedToken("\u0434\u0430", special=False, normalized=False, single_word=True),
]


def train(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(vocab_size=2000, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(ADDED)
    return tokenizer


def plain_of(tokenizer):
    """The same vocabulary with SmolLM2's pipeline."""
    model = json.loads(tokenizer.to_str())["model"]
    plain = Tokenizer(models.BPE(model["vocab"], [tuple(m) for m in model["merges"]]))
    plain.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    return plain


def digest(ids):
    value = 0xCBF29CE484222325
    for byte in struct.pack(f"<{len(ids)}i", *ids):
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{len(ids)}:{value:016x}"


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def main():
    data = pathlib.Path(sys.argv[1])
    real = list(token_lines.language_lines(data / "udhr"))
    small_path = OUT / "small" / "tokenizer.json"
    if "--train" in sys.argv:
        small_path.parent.mkdir(parents=True, exist_ok=True)
        small = train(text for _, text in real)
        small_path.write_text(small.to_str() + "\n", encoding="utf-8")
    small = Tokenizer.from_file(str(small_path))
    plain = plain_of(small)
    qwen3 = Tokenizer.from_file(str(data / "qwen3-tokenizer" / "tokenizer.json"))
    special = [a.content for a in ADDED] + ["<think>", "</tool_call>", " word ", "words"]
    texts = token_lines.lines(real, special, N_LINES, seed=20, per_language=12)
    with open(OUT / "lines.jsonl", "w", encoding="utf-8") as out:
        for text in texts:
            ids = encode(small, text)
            record = {
                "text": text,
                "ids": ids if len(ids) <= MOST_IDS else digest(ids),
                "plain": digest(encode(plain, text)),
                "qwen3": digest(encode(qwen3, text)),
            }
            out.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")
    whole = "\n".join(texts)
    digests = {"ids": digest(encode(small, whole)), "plain": digest(encode(plain, whole)),
               "qwen3": digest(encode(qwen3, whole))}
    (OUT / "whole.json").write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Makes tests/vectors/tokens/merges.json: what HF's BpeTrainer learns from tokens/lines.jsonl.

    python make_merges.py

    merges      of a vocabulary of 256 bytes and 600 merges, in order, texts taken one by one
    lines       digest of 6000 merges from the texts as lines of one file
    all         the same of all merges of pairs that occur twice

A digest is "COUNT:HASH", FNV-1a over the merges in their spelling, a newline after each.
"""

import json
import pathlib
import tempfile

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

OUT = pathlib.Path(__file__).parent / "tokens"
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def tokenizer():
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    return made


def trainer(n_merges):
    return trainers.BpeTrainer(vocab_size=256 + n_merges, min_frequency=2, show_progress=False,
                               initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def merges_of(trained):
    return [" ".join(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]


def digest(merges):
    value = 0xCBF29CE484222325
    for byte in "".join(merge + "\n" for merge in merges).encode():
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{len(merges)}:{value:016x}"


def from_file(texts, n_merges):
    made = tokenizer()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "lines.txt"
        path.write_bytes("\n".join(texts).encode())
        made.train([str(path)], trainer(n_merges))
    return merges_of(made)


def main():
    with open(OUT / "lines.jsonl", encoding="utf-8") as f:
        texts = [json.loads(line)["text"] for line in f]
    one_by_one = tokenizer()
    one_by_one.train_from_iterator(texts, trainer(600))
    made = {"merges": merges_of(one_by_one), "lines": digest(from_file(texts, 6000)),
            "all": digest(from_file(texts, 10**6))}
    with open(OUT / "merges.json", "w", encoding="utf-8") as f:
        f.write(json.dumps(made, ensure_ascii=False, indent=0) + "\n")


if __name__ == "__main__":
    main()

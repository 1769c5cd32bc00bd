#!/usr/bin/env python3
"""`marco tokenizer train` against HF's BpeTrainer on the same files, and its output in transformers.

    python tokenizer_train.py

The text is MARCO_TEST_DATA/udhr/*.txt where that is set, else the committed vectors in the same 29
languages. Random words of few letters make many pairs equally frequent.
"""

import json
import os
import pathlib
import random
import sys
import tempfile

import transformers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

import results

VECTORS = pathlib.Path(results.REPOSITORY) / "tests" / "vectors"
sys.path.insert(0, str(VECTORS))
import token_lines  # noqa: E402

QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SIZES = [256, 300, 1000, 4000, 16384, 100000]
N_RANDOM = 60
N_LINES = 5000


def text_files(folder):
    """Files of text in 29 languages, and JSON lines of the same."""
    data = os.environ.get("MARCO_TEST_DATA")
    if data:
        files = sorted(map(str, pathlib.Path(data).glob("udhr/*.txt")))
    else:
        files = [str(folder / "vectors.txt")]
        with open(VECTORS / "tokens" / "lines.jsonl", encoding="utf-8") as f:
            texts = [json.loads(line)["text"] for line in f]
        texts = [t for t in texts if all(map(token_lines.is_common, t))]
        pathlib.Path(files[0]).write_text("\n".join(texts), encoding="utf-8", newline="")
    return files


def reference(size, frequency):
    """HF's tokenizer and trainer of `size` ordinary tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    return tokenizer, trainers.BpeTrainer(
        vocab_size=size, min_frequency=frequency, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip


def model_of(tokenizer):
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [" ".join(m) for m in model["merges"]]


def marco_train(folder, size, frequency, files):
    results.marco("tokenizer", "train", "-q", "--overwrite", "--to", folder, "--vocab-size",
                  size + len(SPECIAL), "--min-frequency", frequency, *files)  # fmt: skip
    with open(folder / "tokenizer.json", encoding="utf-8") as f:
        read = json.load(f)
    model = read["model"]
    n = len(model["vocab"])
    added = [(token["content"], token["id"]) for token in read["added_tokens"]]
    assert added == [(text, n + i) for i, text in enumerate(SPECIAL)], added
    return model["vocab"], model["merges"]


def compare_sizes(folder, files):
    for size in SIZES:
        tokenizer, trainer = reference(size, 2)
        tokenizer.train(files, trainer)
        want, got = model_of(tokenizer), marco_train(folder, size, 2, files)
        results.row(f"vocabulary of {size} from text in 29 languages",
                    "HF's merges, order and ids", f"{len(got[1])} merges, "
                    + ("all equal" if got == want else "different"), got == want)  # fmt: skip


def compare_random(folder):
    different = 0
    path = folder.parent / "random.txt"
    for seed in range(N_RANDOM):
        rng = random.Random(seed)
        letters = rng.choice(["ab", "abc", "aA ", "aé\u0301"])
        words = ["".join(rng.choice(letters) for _ in range(rng.randrange(1, 30)))
                 for _ in range(rng.randrange(5, 300))]
        path.write_text("".join(w + rng.choice(" \n") for w in words), encoding="utf-8")
        size, frequency = rng.choice([280, 350, 2000]), rng.choice([1, 2, 3])
        tokenizer, trainer = reference(size, frequency)
        tokenizer.train([str(path)], trainer)
        different += model_of(tokenizer) != marco_train(folder, size, frequency, [path])
    results.row(f"{N_RANDOM} texts of few letters, with many ties", "HF's merges, order and ids",
                f"{different} differ", different == 0)  # fmt: skip


def compare_json(folder, files):
    texts = [pathlib.Path(f).read_text(encoding="utf-8") for f in files]
    texts = [t[i:i + 700] for t in texts for i in range(0, len(t), 700)]
    path = folder.parent / "texts.jsonl"
    with open(path, "w", encoding="utf-8") as f:
        for i, text in enumerate(texts):
            chat = {"messages": [{"role": "user", "content": text[:300]},
                                 {"role": "assistant", "content": text[300:]}]}
            f.write(json.dumps({"text": text} if i % 2 else chat, ensure_ascii=i % 3 == 0) + "\n")
    strings = [s for i, t in enumerate(texts) for s in ([t] if i % 2 else [t[:300], t[300:]])]
    tokenizer, trainer = reference(4000, 2)
    tokenizer.train_from_iterator(strings, trainer)
    same = model_of(tokenizer) == marco_train(folder, 4000, 2, [path])
    results.row(f"JSON lines of {len(texts)} texts and chats", "HF's merges, order and ids",
                "equal" if same else "different", same)  # fmt: skip


def compare_loaded(folder, files):
    marco_train(folder, 8000, 2, files)
    real = [(pathlib.Path(f).stem, line) for f in files
            for line in pathlib.Path(f).read_text(encoding="utf-8").split("\n") if line.strip()]
    lines = [t for t in token_lines.lines(real, SPECIAL, 2 * N_LINES) if "\n" not in t][:N_LINES]
    out = results.marco("tokenize", "-m", folder, text="\n".join(lines) + "\n")
    got = [json.loads(line) for line in out.splitlines()]
    chat = [{"role": "user", "content": "Xin chào"}, {"role": "assistant", "content": "नमस्ते"}]
    for kind in (transformers.AutoTokenizer, transformers.PreTrainedTokenizerFast,
                 transformers.Qwen2Tokenizer):  # fmt: skip
        loaded = kind.from_pretrained(folder)
        differ = sum(loaded.encode(t) != ids for t, ids in zip(lines, got, strict=True))
        results.row(f"transformers.{kind.__name__}: ids of {N_LINES} lines", "all equal",
                    f"{differ} lines differ", differ == 0)  # fmt: skip
        text = loaded.apply_chat_template(chat, tokenize=False)
        known = (loaded.eos_token, loaded.pad_token, len(loaded)) == (SPECIAL[0], SPECIAL[0], 8003)
        fine = known and text == "".join(
            f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in chat)
        results.row(f"transformers.{kind.__name__}: template, end, padding, size", "as written",
                    "equal" if fine else "different", fine)  # fmt: skip


def main():
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        folder = scratch / "tokenizer"
        files = text_files(scratch)
        compare_sizes(folder, files)
        compare_random(folder)
        compare_json(folder, files)
        compare_loaded(folder, files)
    results.finish()


if __name__ == "__main__":
    main()

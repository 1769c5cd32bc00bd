#!/usr/bin/env python3
"""lm-evaluation-harness against `marco serve`: a task of log-likelihoods, compared with `marco
score`, and one that generates. The tasks and their data are in harness/."""

import glob
import json
import os
import subprocess
import sys
import tempfile
import urllib.request

import results
import serving

HERE = os.path.dirname(os.path.abspath(__file__))
BAR = 1e-4


def ask(url, path, **body):
    request = urllib.request.Request(
        url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def evaluate(url, folder, batch):
    """Runs both tasks; the samples by task."""
    output = os.path.join(folder, f"out{batch}")
    arguments = {
        "model": "smol",
        "base_url": url + "/v1/completions",
        "tokenizer_backend": "remote",
        "max_length": 2000,
    }
    done = subprocess.run(
        [
            sys.executable, "-m", "lm_eval", "run", "--model", "local-completions",
            "--model_args", ",".join(f"{k}={v}" for k, v in arguments.items()),
            "--tasks", "marco_choices,marco_generate", "--include_path", "harness",
            "--batch_size", str(batch), "--log_samples", "--output_path", output,
        ],
        cwd=HERE, capture_output=True, encoding="utf-8",
        env={**os.environ, "HF_HOME": folder, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    results.row(f"lm-eval runs, batches of {batch}", "exit 0", f"exit {done.returncode}",
                done.returncode == 0)  # fmt: skip
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    samples = {}
    for path in glob.glob(os.path.join(output, "**", "samples_*.jsonl"), recursive=True):
        task = os.path.basename(path).split("_2")[0].removeprefix("samples_")
        with open(path, encoding="utf-8") as f:
            samples[task] = sorted((json.loads(line) for line in f), key=lambda s: s["doc_id"])
    return samples


def score(model, ids, first):
    """The log-likelihood of ids[first:] after those before, and whether all are the likeliest."""
    lines = results.marco(
        "score", "-m", model, "--ids", ",".join(map(str, ids)), "--top", 1, "--json", "-q"
    ).splitlines()  # fmt: skip
    rows = [json.loads(line) for line in lines]
    greedy = all(rows[i - 1]["top"][0][0] == rows[i]["id"] for i in range(first, len(ids)))
    return sum(row["logprob"] for row in rows[first:]), greedy


def compare_choices(url, model, samples):
    worst, greedy, n = 0, True, 0
    for sample in samples:
        for choice, [[found, is_greedy]] in zip(sample["doc"]["choices"], sample["resps"]):
            context = sample["doc"]["question"]
            ids = ask(url, "/tokenize", prompt=f"{context} {choice}", add_special_tokens=False)
            first = ask(url, "/tokenize", prompt=context, add_special_tokens=False)["count"]
            want, want_greedy = score(model, ids["tokens"], first)
            worst = max(worst, abs(float(found) - want))
            greedy &= (str(is_greedy) == "True") == want_greedy
            n += 1
    results.row(f"lm-eval's log-likelihoods of {n} continuations against marco score",
                f"<= {BAR}", f"{worst:.2e}", n > 10 and worst <= BAR)  # fmt: skip
    results.row("lm-eval's finding of which are greedy", "the same", str(greedy), greedy)


def compare_texts(url, samples):
    same = True
    for sample in samples:
        reply = ask(url, "/v1/completions", prompt=sample["doc"]["question"], max_tokens=12,
                    temperature=0, stop=["\n", "."])  # fmt: skip
        same &= sample["resps"][0][0] == reply["choices"][0]["text"]
    results.row("lm-eval's generated texts against plain requests", "the same", str(same),
                same and len(samples) > 0)  # fmt: skip


if __name__ == "__main__":
    model = results.parent()
    with tempfile.TemporaryDirectory() as folder:
        with serving.server("-m", f"smol={model}", "--ctx", "2048") as url:
            for batch in (1, 4):
                samples = evaluate(url, folder, batch)
                compare_choices(url, model, samples["marco_choices"])
                compare_texts(url, samples["marco_generate"])
    results.finish()

#!/bin/sh
# docs/training.md: its walk as it is printed there, and its list of settings.
# Usage: test_training_docs.sh PROGRAM SOURCE_FOLDER
. "$(dirname "$0")/common.sh"
source=$2

mkdir bin corpus
ln -s "$marco" bin/marco
for file in "$source"/docs/*.md; do
    cp "$file" "corpus/$(basename "$file" .md).txt"
done
python3 - <<'PYTHON'
import json
with open("chat.jsonl", "w") as f:
    for i in range(200):
        a, b = i % 10, i // 20
        messages = [{"role": "user", "content": f"{a} plus {b}?"},
                    {"role": "assistant", "content": f"{a + b}."}]
        f.write(json.dumps({"messages": messages}) + "\n")
PYTHON

# Blocks of JSON go to the file that the text before them names, those of the shell are run.
cat >extract.py <<'PYTHON'
import json, re, sys
text = open(sys.argv[1], encoding="utf-8").read()
walk = text.split("\n## The walk\n")[1].split("\n## ")[0]
script, name = ["set -e"], None
for before, kind, block in re.findall(r"(.*?)\n```(json|sh)?\n(.*?)\n```", walk, re.DOTALL):
    named = re.findall(r"`(\w+\.json)`", before)
    if kind == "json":
        json.loads(block)
        open(named[-1], "w").write(block)
    elif kind == "sh":
        script.append(block)
open("walk.sh", "w").write("\n".join(script) + "\n")
PYTHON
works python3 extract.py "$source/docs/training.md"
check 'commands were found' [ "$(grep -c '^marco ' walk.sh)" -ge 14 ]
PATH=$scratch/bin:$PATH
works sh walk.sh
check 'a checkpoint of each run' [ "$(find runs -name model.safetensors | wc -l)" -ge 5 ]
python3 - <<'PYTHON' || fail 'the losses of the walk'
import json, sys
def losses(run, kind):
    lines = map(json.loads, open(f"runs/{run}/metrics.jsonl"))
    return [line["loss"] for line in lines if line["kind"] == kind]
for run in "dense", "sft", "lora":
    valid = losses(run, "valid")
    if not valid[-1] < valid[0] - 0.2:
        sys.exit(f"{run}: {valid}")
kinds = {json.loads(line)["kind"] for line in open("runs/moe/metrics.jsonl")}
if kinds != {"run", "step", "valid", "load"}:
    sys.exit(f"kinds of metrics: {kinds}")
PYTHON

# Every setting and its default stand in the tables, and nothing else does.
works "$marco" train dense.json --print-recipe --set steps=100
mv out random.json
works "$marco" train moe.json --print-recipe
mv out given.json
cat >settings.py <<'PYTHON'
import json, re, sys

def flatten(value, key=""):
    if not isinstance(value, dict):
        return {key: value}
    return {k: v for inner in value for k, v in flatten(value[inner], f"{key}.{inner}".strip(".")).items()}

docs = open(sys.argv[1], encoding="utf-8").read().split("\n## Recipes\n")[1].split("\n## ")[0]
rows = re.findall(r"^\| `([a-z0-9_.]+)`( \*)? \| (.*?) \|", docs, re.MULTILINE)
random, given = (flatten(json.load(open(name))) for name in ("random.json", "given.json"))
there = {*random, *given}
listed = {key for key, _, _ in rows}
if listed != there:
    sys.exit(f"not in the tables: {there - listed}; only in the tables: {listed - there}")
recipe = flatten(json.load(open("dense.json")))
for key, _, default in rows:
    try:
        value = json.loads(default)
    except ValueError:
        continue  # words
    if key not in recipe and random.get(key, value) != value:
        sys.exit(f"{key}: {value} in the table, {random[key]} in the program")
PYTHON
works python3 settings.py "$source/docs/training.md"
finish

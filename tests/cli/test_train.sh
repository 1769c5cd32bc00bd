#!/bin/sh
# test_train.sh PROGRAM FOLDER-OF-A-FAKE-OPENBLAS
# Training: broken off in every way and gone on with, to the same bits; recipes, data and disks that
# will not do.
fake=$2
docs=$(cd "$(dirname "$0")/../../docs" && pwd)/training.md
. "$(dirname "$0")/common.sh"

cat >words.py <<'PYTHON'
import random, sys
random.seed(int(sys.argv[1]))
words = "the of a river stone light house under over small green walks sings quickly then".split()
for _ in range(int(sys.argv[2])):
    print(" ".join(random.choice(words) for _ in range(random.randint(5, 30))) + ".")
PYTHON
python3 words.py 1 600 >text.txt
works "$marco" synth tiny-qwen3moe model --type F32
works "$marco" data --tokenizer model --to data --lines --valid 0.05 text.txt
cat >recipe.json <<'JSON'
{
  "model": "model",
  "data": {"sources": ["data"]},
  "seq_len": 32, "batch": 4, "micro_batch": 2, "steps": 24,
  "optimizer": {"lr": 2e-3},
  "schedule": {"warmup": 4},
  "balance": {"kind": "bias"},
  "dropout": {"what": "experts", "rate": 0.2, "end_rate": 0},
  "checkpoint": {"every": 3},
  "valid": {"every": 8, "batches": 1}
}
JSON
last=checkpoints/step-00000024

# same A B [CHECKPOINT]: two runs whose last checkpoints have the same numbers.
same() {
    for file in model optimizer; do
        check "$2: the same $file as of $1" cmp "$1/${3:-$last}/$file.safetensors" \
            "$2/${3:-$last}/$file.safetensors"
    done
}

# endless RUN STEPS: nothing in it depends on how many steps there will be; with very many of them
# it can be broken off at any time.
cat >endless.py <<'PYTHON'
import json
with open("recipe.json") as file:
    recipe = json.load(file)
recipe["schedule"]["kind"] = "constant"
recipe["dropout"]["end_rate"] = recipe["dropout"]["rate"]
with open("endless.json", "w") as file:
    json.dump(recipe, file)
PYTHON
works python3 endless.py
endless() {
    works "$marco" train endless.json --to "$1" --set steps="$2"
}

# number_of CHECKPOINT: 24 of .../step-00000024.
number_of() {
    echo "$1" | sed 's/.*step-0*//'
}

# ---- without a break, with threads, and what comes out

works "$marco" train recipe.json --to whole -t 1
check 'a line at the end' grep -q 'step 24/24 .*loss' err
check 'the checkpoint is named' grep -q "checkpoint: whole/$last" err
check 'two checkpoints are kept' [ "$(echo whole/checkpoints/*)" = \
    "whole/checkpoints/step-00000021 whole/$last" ]
works "$marco" run -m "whole/$last" -p 'the river' -n 4 --temp 0
works "$marco" train recipe.json --to threads -t 2
same whole threads
works "$marco" train recipe.json --to whole
check 'nothing is left to do' grep -q 'nothing left' err

# ---- gone on with

python3 - "$marco" <<'PYTHON' || fail "interrupting"
import os, signal, subprocess, sys, time
process = subprocess.Popen([sys.argv[1], "train", "endless.json", "--to", "parts",
                            "--set", "steps=1000000"], stderr=open("err", "wb"))
while not os.path.exists("parts/checkpoints/step-00000003"):
    if process.poll() is not None:
        sys.exit("it ended by itself")
    time.sleep(0.001)
process.send_signal(signal.SIGINT)
sys.exit(process.wait() != 130)
PYTHON
check 'Ctrl-C says how to go on' grep -q 'the same command goes on' err
stopped=$(sed -n 's/.*stopped after step \([0-9]*\) of.*/\1/p' err)
cut=$(find parts/checkpoints -name 'step-*' | sort | tail -n 1)
check 'Ctrl-C leaves a checkpoint' [ "$(number_of "$cut")" = "$stopped" ]
end=$((stopped + 5))
endless parts $end
check 'the rest is trained' grep -q 'trained 5 steps' err
endless unbroken $end
same unbroken parts "checkpoints/$(printf 'step-%08d' $end)"

# Killed eight times: after some steps at a random moment, or before there are any.
cat >kill.py <<'PYTHON'
import os, random, signal, subprocess, sys, time
seed = int.from_bytes(os.urandom(2), "little")
random.seed(seed)

def steps():
    try:
        with open("killed/metrics.jsonl", "rb") as file:
            return file.read().count(b"\n")
    except FileNotFoundError:
        return 0

for _ in range(8):
    wanted = steps() + random.choice([0, 1, 2, 3, 4])
    process = subprocess.Popen([sys.argv[1], "train", "endless.json", "--to", "killed",
                                "--set", "steps=1000000"], stderr=open("err", "wb"))
    while steps() < wanted and process.poll() is None:
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.1))
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        sys.exit(f"seed {seed}: it ended by itself: " + open("err").read())
    for name in os.listdir("killed/checkpoints") if os.path.exists("killed/checkpoints") else []:
        if name[0] != "." and not os.path.exists(f"killed/checkpoints/{name}/trainer.json"):
            sys.exit(f"seed {seed}: {name} is not whole")
print(f"seed {seed}: {steps()} lines")
PYTHON
works python3 kill.py "$marco"
cat out
cut=$(find killed/checkpoints -name 'step-*' 2>/dev/null | sort | tail -n 1)
end=$(($(number_of "${cut:-step-0}") + 5))
endless killed $end
endless unkilled $end
same unkilled killed "checkpoints/$(printf 'step-%08d' $end)"
check 'no temporary folders are left' \
    [ -z "$(find killed/checkpoints -mindepth 1 -maxdepth 1 -name '.*')" ]

# A damaged checkpoint: the one before, with a note.
cp -r whole damaged
truncate -s 1000 "damaged/$last/optimizer.safetensors"
works "$marco" train recipe.json --to damaged
check 'damage is noted' grep -q 'note: .*step-00000024.*optimizer.safetensors' err
same whole damaged

# BF16 and adapters come back as well.
for kind in 'weights=bf16' 'lora.rank=2'; do
    works "$marco" train recipe.json --to "a-$kind" --set $kind --set checkpoint.every=12
    works "$marco" train recipe.json --to "b-$kind" --set $kind --set checkpoint.every=12 \
        --set checkpoint.keep_last=9
    rm -r "b-$kind/$last"
    works "$marco" train recipe.json --to "b-$kind" --set $kind --set checkpoint.every=12
    same "a-$kind" "b-$kind"
done
check 'adapters are written' cmp "a-$kind/$last/adapters.safetensors" \
    "b-$kind/$last/adapters.safetensors"

# BF16 forgets nothing of the model that training begins from: the masters have it.
works "$marco" train recipe.json --to masters --set weights=bf16 --set steps=1 \
    --set schedule.warmup=0 --set optimizer.lr=1e-8
check 'masters are the source in full' python3 - <<'PYTHON'
import array, json, struct
def tensors(path):
    data = open(path, "rb").read()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    return {name: array.array("f", data[8 + size:][slice(*t["data_offsets"])])
            for name, t in header.items() if t["dtype"] == "F32"}
masters = tensors("masters/checkpoints/step-00000001/optimizer.safetensors")
source = tensors("model/model.safetensors")
names = [name for name in source if "master." + name in masters]
assert len(names) > 5, list(masters)
for name in names:
    far = max(abs(a - b) for a, b in zip(source[name], masters["master." + name]))
    assert far < 1e-6, (name, far)
PYTHON

# What fills up a chat's sequence is nothing to the routers.
line='{"messages": [{"role": "user", "content": "the river"},'
line="$line"' {"role": "assistant", "content": "a stone"}]}'
yes "$line" | head -n 40 >chat.jsonl
works "$marco" data --tokenizer model --to chat --chat chat.jsonl
check 'padding is nothing to the routers' python3 - "$marco" <<'PYTHON'
import json, subprocess, sys
split = json.load(open("chat/data.json"))["splits"]["train"]
length = split["tokens"] // split["documents"] - 1
def lines(seq_len):
    settings = ['data.sources=["chat"]', "data.kind=chat", f"seq_len={seq_len}", "steps=5",
                "valid.every=0", "balance.kind=switch", "balance.z_loss=0.1", "dropout.rate=0",
                "log_load_every=1"]
    sets = [word for setting in settings for word in ("--set", setting)]
    subprocess.run([sys.argv[1], "train", "recipe.json", "--to", f"chat-{seq_len}", "--quiet"] + sets,
                   check=True)
    return [json.loads(line) for line in open(f"chat-{seq_len}/metrics.jsonl")]
for a, b in zip(lines(length), lines(2 * length - 1)):
    if a["kind"] == "step":
        assert a["targets"] == b["targets"]
        assert all(abs(a[key] - b[key]) < 1e-4 * abs(a[key])
                   for key in ("loss", "balance", "z_loss", "entropy", "norm")), (a, b)
    if a["kind"] == "load":
        assert a["layers"] == b["layers"], (a, b)
PYTHON

# Another recipe does not go on, unless from the beginning.
refuses 1 'whole/recipe.json.*"seed" 0.*--restart' \
    "$marco" train recipe.json --to whole --set seed=5
works "$marco" train recipe.json --to parts --set seed=5 --set steps=3 \
    --set schedule.warmup=0 --restart
check 'the old checkpoints are gone' [ "$(ls parts/checkpoints)" = step-00000003 ]

# ---- plans

works "$marco" train recipe.json --dry-run --to nowhere
check 'a plan' grep -q 'activations' out
check 'a plan leaves nothing' [ ! -e nowhere ]
works "$marco" train recipe.json --print-recipe --set optimizer.clip=0.25
cp out printed
check 'overrides are in the recipe' grep -q '"clip": 0.25' printed
cp printed printed.json
works "$marco" train printed.json --print-recipe
check 'the complete recipe is complete' cmp -s out printed

# Every setting is explained.
works "$marco" train --print-recipe --set 'data.sources=["d"]' --set steps=1 --set 'model={
    "architecture": "qwen3moe", "tokenizer": "t", "layers": 1, "dim": 8, "heads": 1, "experts": 2,
    "experts_used": 1, "expert_dim": 8}'
cp out printed
works python3 - "$docs" <<'PYTHON'
import json, sys
with open(sys.argv[1], encoding="utf-8") as file:
    text = "".join(line for line in file if line.startswith("|"))

def check(value, key):
    if isinstance(value, dict):
        for name, inner in value.items():
            check(inner, f"{key}.{name}" if key else name)
    elif f"`{key}`" not in text:
        sys.exit(f"docs/training.md does not explain {key}")

check(json.load(open("printed", encoding="utf-8")), "")
PYTHON

# ---- data

# Sources that are told apart by more than the last part of their paths, in metrics and report.
long=$(printf 'n%.0s' $(seq 60))éééé
mkdir -p a b "$long"
for to in a/en b/en "$long/en" "$long-é"; do
    works "$marco" data --tokenizer model --to "$to" --lines --valid 0.05 text.txt
done
works "$marco" train recipe.json --to named --set steps=2 --set schedule.warmup=0 \
    --set "data.sources=[\"a/en\", \"b/en/\", \"$long/en\", \"$long-é\", \"a/en\"]"
works python3 - "$long" <<'PYTHON'
import json, sys

def unique(pairs):
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)

with open("named/metrics.jsonl", encoding="utf-8") as file:
    lines = [json.loads(line, object_pairs_hook=unique) for line in file]
valid = [line["per_source"] for line in lines if line["kind"] == "valid"]
assert len(valid) == 2, lines
names = [name.replace(sys.argv[1], "LONG") for name in valid[0]]
ends = ["a/en", "b/en", "LONG/en", "LONG-é", "a/en (2)"]
assert len(names) == 5 and all(map(str.endswith, names, ends)), names
PYTHON
works "$marco" report named -o named.html
check 'the report reads all lines' [ "$(grep -c 'cannot be read' named.html)" -eq 0 ]
check 'the report has all sources' grep -q 'b/en' named.html

# Conversations.
python3 - >chat.jsonl <<'PYTHON'
import json
for i in range(60):
    print(json.dumps({"messages": [{"role": "user", "content": f"what is {i}"},
                                   {"role": "assistant", "content": "river " * (i // 2)}]}))
PYTHON
works "$marco" data --tokenizer model --to chats --chat chat.jsonl
refuses 1 'chats: holds conversations, but data.kind is "text"' \
    "$marco" train recipe.json --to x --set 'data.sources=["chats"]' --set valid.every=0
refuses 1 'data: holds text, but data.kind is "chat"' \
    "$marco" train recipe.json --to x --set data.kind=chat
set -- --set 'data={"kind": "chat", "sources": ["chats"]}' --set valid.every=0 --set seq_len=128
works "$marco" train recipe.json --dry-run "$@"
check 'cuts are noted' grep -Eq 'note: [1-9][0-9]? of 60 conversations are longer than seq_len' err
works "$marco" train recipe.json --to talked "$@"
check 'cuts are noted once' [ "$(grep -c 'conversations are longer' err)" -eq 1 ]
cp talked/metrics.jsonl out
json '(lambda s: len(s) == 24 and s[-1]["cut"] > s[0]["cut"] >= 0 and s[-1]["repeated"] > 0)(
    [row for row in rows if row["kind"] == "step"])'
works "$marco" train recipe.json --dry-run "$@" --set seq_len=256 --set batch=1
check 'nothing is cut' [ "$(grep -c 'conversations are longer' err)" -eq 0 ]

# What is held out may be missing or short, but not damaged.
works "$marco" data --tokenizer model --to none --lines text.txt
works "$marco" train recipe.json --dry-run --set 'data.sources=["none"]'
check 'nothing held out' grep -q 'note: no validation on .*none: no documents were held out' err
seq 300 >numbers.txt
works "$marco" data --tokenizer model --to little --lines --valid 0.05 numbers.txt
works "$marco" train recipe.json --dry-run --set 'data.sources=["little"]' --set seq_len=150
check 'too little held out' grep -q 'note: no validation on .*little: .* less than one sequence' err
cp -r data broken
truncate -s -5 broken/valid-00000.ids
refuses 1 'broken/valid-00000.ids' \
    "$marco" train recipe.json --to x --set 'data.sources=["broken"]'

# ---- what will not do

refuses 2 'needs a RECIPE' "$marco" train --to x
refuses 2 'needs --to' "$marco" train recipe.json
refuses 1 'missing.json' "$marco" train missing.json --to x
printf '{"steps": 1,}' >bad.json
refuses 1 'bad.json: line 1' "$marco" train bad.json --to x
sed 's/"optimizer"/"optimiser"/' recipe.json >bad.json
refuses 1 'bad.json: .*"optimiser"; the nearest is "optimizer' \
    "$marco" train bad.json --to x
refuses 1 '--set: .*no setting "step".*"steps"' "$marco" train recipe.json --to x --set step=3
refuses 1 '--set: "batch" is 0' "$marco" train recipe.json --to x --set batch=0
refuses 1 'no/model' "$marco" train recipe.json --to x --set model=no/model
refuses 1 'no/data' "$marco" train recipe.json --to x --set 'data.sources=["no/data"]'
refuses 1 'seq_len' "$marco" train recipe.json --to x --set seq_len=4096
works "$marco" tokenizer train --to other text.txt --vocab-size 300
works "$marco" data --tokenizer other --to otherdata --lines text.txt
refuses 1 'tokenizer' "$marco" train recipe.json --to x --set 'data.sources=["otherdata"]'
echo 'the river' >short.txt
works "$marco" data --tokenizer model --to short short.txt
refuses 1 'short' "$marco" train recipe.json --to x --set 'data.sources=["short"]'
check 'nothing was made' [ ! -e x ]
mkdir mine
echo thesis >mine/thesis.txt
refuses 1 "mine holds 'thesis.txt'" "$marco" train recipe.json --to mine
refuses 1 "mine holds 'thesis.txt'" "$marco" train recipe.json --to mine --restart

# Weights that are not numbers: no checkpoint of them, and an end after a few steps.
cp -r model nan
python3 - <<'PYTHON'
import json, struct
with open("nan/model.safetensors", "r+b") as file:
    size = struct.unpack("<Q", file.read(8))[0]
    header = json.loads(file.read(size))
    file.seek(8 + size + header["model.layers.1.self_attn.o_proj.weight"]["data_offsets"][0])
    file.write(struct.pack("<f", float("nan")))
PYTHON
refuses 1 'not finite|not a finite' "$marco" train recipe.json --to nan1 --set model=nan \
    --set valid.every=0
check 'no checkpoint of NaN' [ -z "$(ls nan1/checkpoints)" ]

# A disk that fills during a checkpoint: a limit on the size of files stands in for it.
cp -r whole full
rm -r "full/$last"
(
    ulimit -f 600
    trap '' XFSZ
    exec "$marco" train recipe.json --to full
) >out 2>err
status=$?
check "full disk: exit status $status" [ $status -eq 1 ]
check 'full disk: the step is named' \
    grep -q 'step 24 was not written, those before it are whole' err
check 'full disk: nothing is left' [ "$(ls -A full/checkpoints)" = step-00000021 ]
works "$marco" train recipe.json --to full
same whole full

# Begun by several processes and ended by one: the same within rounding.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
if command -v mpirun >path && mpirun -n 2 "$marco" train recipe.json --dry-run >out 2>err; then
    check 'two processes' grep -q '^processes  *2$' out
    works mpirun -n 2 "$marco" train recipe.json --to many -t 1 --set parallel.experts=2
    rm -r "many/$last"
    works "$marco" train recipe.json --to many
    works python3 - "whole/$last" "many/$last" <<'PYTHON'
import array, json, struct, sys

def weights(folder):
    with open(folder + "/model.safetensors", "rb") as file:
        file.seek(struct.unpack("<Q", file.read(8))[0], 1)
        return array.array("f", file.read())

a, b = map(weights, sys.argv[1:])
difference = max(abs(x - y) for x, y in zip(a, b, strict=True))
print(difference)
sys.exit(not difference < 1e-3)
PYTHON
    cat out
fi

# ---- an OpenBLAS with OpenMP, which is as many times as many threads

refuses 1 'OpenMP.* 4 threads.*OMP_NUM_THREADS=1' env LD_LIBRARY_PATH="$fake" OMP_NUM_THREADS=4 \
    "$marco" train recipe.json --dry-run --to nowhere
works env -u OMP_NUM_THREADS LD_LIBRARY_PATH="$fake" "$marco" train recipe.json --dry-run --to nowhere

finish

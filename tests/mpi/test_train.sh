#!/bin/sh
# test_train.sh PROGRAM [MPIRUN]: training in four processes is training in one; what one of them
# cannot do ends them all, with the last checkpoint whole; the traffic is what docs/scaling.md says.
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../cli/common.sh
. "$here/../cli/common.sh"

cat >recipe.json <<'JSON'
{"model": {"architecture": "qwen3moe", "tokenizer": "tok", "layers": 2, "dim": 32, "heads": 4,
           "kv_heads": 2, "head_dim": 16, "experts": 8, "experts_used": 2, "expert_dim": 24},
 "data": {"sources": [{"path": "data"}]},
 "seq_len": 64, "batch": 8, "micro_batch": 2, "steps": 20, "seed": 3,
 "optimizer": {"lr": 3e-3}, "schedule": {"kind": "constant", "warmup": 2},
 "balance": {"kind": "switch", "coefficient": 0.01, "z_loss": 1e-3},
 "valid": {"every": 0}, "checkpoint": {"every": 0}, "log_load_every": 5}
JSON

if [ $# -lt 2 ]; then
    # Before it looks for the data and the tokenizer.
    refuses 1 'mpirun started 4 processes.*built without MPI.*libopenmpi-dev.*-DMARCO_MPI=ON' \
        env OMPI_COMM_WORLD_SIZE=4 "$marco" train recipe.json --to run
    echo "skipped: training in several processes, built without MPI"
    finish
fi
mpirun=$2
# shellcheck source=mpirun.sh
. "$here/mpirun.sh"

sentences 1500 >text.txt
works "$marco" tokenizer train --to tok --vocab-size 300 --quiet text.txt
works "$marco" data --tokenizer tok --to data --lines --quiet text.txt

check "the tables in docs/scaling.md" \
    python3 -B "$here/../../bench/scaling.py" tables --write=check

train() {
    "$marco" train recipe.json --threads 1 --quiet "$@"
}

# train_in N OPTION...
train_in() {
    processes=$1
    shift
    run "$processes" "$marco" train recipe.json --threads 1 --quiet "$@"
}

# same_losses RUN RUN TOLERANCE: at every step that both have taken.
same_losses() {
    python3 - "$@" <<'PYTHON'
import json, sys
def losses(run):
    with open(run + "/metrics.jsonl") as file:
        lines = [json.loads(line) for line in file]
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "step"}
a, b = losses(sys.argv[1]), losses(sys.argv[2])
far = max(abs(a[step] - b[step]) for step in a.keys() & b.keys())
print(f"{sys.argv[1]} and {sys.argv[2]}: {len(a.keys() & b.keys())} steps, losses differ by {far:.1e}")
sys.exit(not (far <= float(sys.argv[3]) and len(a.keys() & b.keys()) >= 3))
PYTHON
}

# ---- four are one -------------------------------------------------------------------------------

works train --to one
for experts in 1 2 4; do
    works train_in 4 --to four-$experts --set parallel.experts=$experts
    check "four processes, experts over $experts" same_losses one four-$experts 1e-4
    check "traffic, experts over $experts" \
        python3 -B "$here/../../bench/scaling.py" check four-$experts
done
check "they learn" python3 - <<'PYTHON'
import json
steps = [json.loads(line) for line in open("four-2/metrics.jsonl")]
losses = [line["loss"] for line in steps if line["kind"] == "step"]
assert len(losses) == 20 and losses[-1] < losses[0] - 0.3, losses
PYTHON
# One pass a step on both sides: what is balanced by default is then the same too.
works train --to one-global --set balance.kind=global --set micro_batch=8
works train_in 4 --to four-global --set balance.kind=global --set parallel.experts=2
check "balanced over all" same_losses one-global four-global 1e-4
works train --to one-bf16 --set weights=bf16
works train_in 4 --to four-bf16 --set weights=bf16 --set parallel.experts=2 --set recompute=true
check "BF16, recomputed" same_losses one-bf16 four-bf16 1e-2
check "traffic in BF16, recomputed" python3 -B "$here/../../bench/scaling.py" check four-bf16

# ---- what all must know -------------------------------------------------------------------------

# fails PATTERN COMMAND...: exits with an error within the time, and a line says why.
fails() {
    pattern=$1
    shift
    checks=$((checks + 1))
    "$@" >out 2>err
    status=$?
    if [ $status -eq 0 ] || [ $status -eq 124 ]; then
        fail "exit status $status: $*"
    elif ! grep -Eq -- "$pattern" err; then
        fail "no '$pattern' on stderr: $*"
    fi
}

# Each process has a number, and leaves its process id.
cat >each.sh <<'SH'
rank=${OMPI_COMM_WORLD_RANK:-$PMI_RANK}
echo $$ >"pid.$rank.part"
mv "pid.$rank.part" "pid.$rank"
marco=$1 odd=$2
shift 2
[ "$rank" != 2 ] || set -- "$@" $odd
exec "$marco" train recipe.json --threads 1 --quiet "$@"
SH

fails 'process 2 of 4 has another recipe' run 4 sh each.sh "$marco" "--set seed=4" --to differ
fails 'process 2: .*no-such-key' \
    run 4 sh each.sh "$marco" "--set no-such-key=4" --to differ
fails 'batch' train_in 3 --to differ
fails 'cannot be spread over 3 of 4' train_in 4 --to differ --set parallel.experts=3
check "nothing was begun" test ! -e differ

# ---- validation, of which each does its share ---------------------------------------------------

works "$marco" data --tokenizer tok --to held --lines --valid 0.2 --quiet text.txt
held='{"sources": [{"path": "held"}]}'
works train --to one-held --set "data=$held" --set valid.every=10 --set valid.batches=2
works train_in 4 --to four-held --set "data=$held" --set valid.every=10 --set valid.batches=2 \
    --set parallel.experts=2
check "validated alike" python3 - <<'PYTHON'
import json
def valid(run):
    with open(run + "/metrics.jsonl") as file:
        return [line["loss"] for line in map(json.loads, file) if line["kind"] == "valid"]
one, four = valid("one-held"), valid("four-held")
assert len(one) == len(four) >= 2 and all(abs(a - b) < 1e-4 for a, b in zip(one, four)), (one, four)
PYTHON

# One process finds other data at the same path: what is in the folder `odd`, where it works.
cat >odd.sh <<'SH'
rank=${OMPI_COMM_WORLD_RANK:-$PMI_RANK}
[ "$rank" != "$1" ] || cd odd || exit 9
shift
exec "$@"
SH
# odd_in PROCESSES NUMBER
odd_in() {
    run "$1" sh odd.sh "$2" "$marco" train "$scratch/recipe.json" --threads 1 --quiet \
        --to "$scratch/differ" --set model.tokenizer="$scratch/tok" \
        --set 'data={"sources": ["/proc/self/cwd/held"]}' --set valid.every=10 \
        --set valid.batches=1000
}
mkdir odd
# alter FOLDER HOW: another one in `odd`
alter() {
    rm -rf odd/held
    cp -r held odd/held
    works python3 - "$1" <<'PYTHON'
import json, os, struct, sys
if sys.argv[1] == "nothing":
    with open("odd/held/data.json", "r+") as file:
        data = json.load(file)
        for key in "shards", "documents", "tokens":
            data["splits"]["valid"][key] = 0
        file.seek(0)
        file.truncate()
        json.dump(data, file)
elif sys.argv[1] == "damaged":
    os.truncate("odd/held/valid-00000.ids", 100)
else:  # one id, of a document in the middle
    with open("odd/held/valid-00000.ids", "r+b") as file:
        ids = json.load(open("odd/held/data.json"))["splits"]["valid"]["tokens"]
        file.seek(64 + ids // 2 * 4)
        file.write(struct.pack("<i", 1000000))
PYTHON
}
alter nothing
fails 'process 2 of 4 has another data' odd_in 4 2
alter damaged
fails 'process 1: .*valid-00000.ids' odd_in 2 1
check "nothing was begun" test ! -e differ
alter id
fails 'process 1: .*valid-00000.ids: token .* is 1000000, outside the vocabulary' odd_in 2 1

# ---- a process dies -----------------------------------------------------------------------------

last_step() {
    find "$1/checkpoints" -maxdepth 1 -name 'step-*' | sed 's/.*step-0*//' | sort -n | tail -n 1
}

# begin RUN: four processes that would train for long; waits for their second checkpoint.
begin() {
    rm -f pid.*
    run 4 sh each.sh "$marco" "" --to "$1" --set parallel.experts=2 --set checkpoint.every=3 \
        --set steps=100000 >out 2>err &
    background=$!
    tries=0
    # Checkpoints come and go: it may be a later one already.
    until [ "$(last_step "$1" 2>/dev/null)" -ge 6 ] 2>/dev/null; do
        tries=$((tries + 1))
        if [ $tries -gt 600 ] || ! kill -0 $background 2>/dev/null; then
            fail "no checkpoint of $1"
            finish
        fi
        sleep 0.1
    done
}

begin killed
kill -9 "$(cat pid.2)"
checks=$((checks + 1))
! wait $background || fail "the loss of a process is no error"
check "mpirun says which process was lost" grep -q 'signal 9' err
step=$(last_step killed)
check "a checkpoint remains" test "$step" -ge 6
works train --to one-long --set steps=$((step + 4))
works train_in 2 --to killed --set parallel.experts=1 --set checkpoint.every=0 \
    --set steps=$((step + 4))
check "two processes go on" grep -q "\"resumed\":$step" killed/metrics.jsonl
check "as if nothing had happened" same_losses one-long killed 1e-3
check "to the end" test "$(last_step killed)" -eq $((step + 4))

# ---- a process is asked to stop -----------------------------------------------------------------

begin stopped
kill -INT "$(cat pid.1)"
checks=$((checks + 1))
! wait $background || fail "stopping early is no success"
check "all stop after a step" grep -q 'stopped after step' err
step=$(last_step stopped)
check "and keep it" grep -q "stopped after step $step of" err
finish

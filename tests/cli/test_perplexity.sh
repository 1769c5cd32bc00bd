#!/bin/sh
# marco perplexity and marco imatrix: the numbers, what a faster path costs, and what is refused.
. "$(dirname "$0")/common.sh"

works "$marco" synth tiny-qwen3moe model.gguf --type Q8_0
works "$marco" synth tiny-qwen3moe other.gguf --type Q8_0 --seed 7
python3 -c 'print("".join(chr(33 + i * i * 31 % 90) for i in range(700)))' >text

# ---- perplexity: over the second half of a chunk what `score` says of it
head -c 41 text >short
works "$marco" score -m model.gguf -f short --ctx 41 --json --compute f32
python3 -c '
import json, math
rows = [json.loads(line) for line in open("out")][21:]
print(math.exp(-sum(row["logprob"] for row in rows) / len(rows)))' >wanted
works "$marco" perplexity -m model.gguf -f short --ctx 41 --compute f32 --json
json 'abs(rows[0]["perplexity"] / float(open("wanted").read()) - 1) < 1e-9'
json 'rows[0]["ctx"] == 41 and rows[0]["chunks"] == 1 and rows[0]["scored"] == 20'
works sh -c '"$1" perplexity -m model.gguf --ctx 41 --compute f32 -f - --json <short >again' - "$marco"
works "$marco" perplexity -m model.gguf -f short --ctx 41 --compute f32 --json
check 'standard input' cmp out again

for threads in 1 2 3 4; do
    works "$marco" perplexity -m model.gguf -f text --ctx 160 --kl-base other.gguf --json -t $threads
    [ -f reference ] || cp out reference
    check "$threads threads, the same bits" cmp out reference
done
json 'rows[0]["chunks"] == 4 and rows[0]["scored"] == 4 * 79 and rows[0]["kl"]["mean"] > 0.001'
json 'rows[0]["kl"]["median"] <= rows[0]["kl"]["p99"] <= rows[0]["kl"]["p999"] <= rows[0]["kl"]["max"]'

# ---- the default path against the reference path on the same file
works "$marco" perplexity -m model.gguf -f text --ctx 160 --kl-base model.gguf \
    --kl-base-compute f32 --json
json '0 < rows[0]["kl"]["mean"] <= 5e-3'
json 'rows[0]["same_top"] > 0.8'
cp out both
works "$marco" perplexity -m model.gguf -f text --ctx 160 --compute f32 --save-kl-base base.kl -q
works "$marco" perplexity -m model.gguf -f text --ctx 160 --kl-base base.kl --json
json 'abs(rows[0]["kl"]["mean"] - json.load(open("both"))["kl"]["mean"]) < 1e-5'
json 'rows[0]["same_top"] == json.load(open("both"))["same_top"]'
json 'rows[0]["base_perplexity"] == json.load(open("both"))["base_perplexity"]'
works "$marco" perplexity -m model.gguf -f text --ctx 160 --kl-base base.kl
check 'people read it' grep -Eq '^  99\.9% +[0-9.]+$' out

# ---- what 8-bit keys and values cost; the base keeps its own
works "$marco" perplexity -m model.gguf -f text --ctx 160 --kl-base model.gguf --kv q8_0 --json
json '0 < rows[0]["kl"]["mean"] < 0.05'
works "$marco" perplexity -m model.gguf -f text --ctx 160 --kl-base model.gguf --kv f16 --json
json 'abs(rows[0]["kl"]["max"]) < 1e-9 and rows[0]["same_top"] == 1'
refuses 2 "kv 'f8': must be f16, f32 or q8_0" "$marco" perplexity -m model.gguf -f text --kv f8

refuses 2 'no text: give -f' "$marco" perplexity -m model.gguf
refuses 1 'nowhere' "$marco" perplexity -m model.gguf -f nowhere
refuses 1 'the text has 701 tokens, too few' sh -c 'cat text >t; "$1" perplexity -m model.gguf \
    -f t --ctx 1000' - "$marco"
refuses 1 'context: 3 is not between 4 and' "$marco" perplexity -m model.gguf -f text --ctx 3
refuses 1 'base\.kl already exists' "$marco" perplexity -m model.gguf -f text --save-kl-base base.kl
refuses 1 'base\.kl: .*context of 160' "$marco" perplexity -m model.gguf -f text --ctx 128 \
    --kl-base base.kl
refuses 1 'base\.kl: .*4 chunks' "$marco" perplexity -m model.gguf -f text --ctx 160 \
    --chunks 2 --kl-base base.kl
tr ABC BCA <text >changed
refuses 1 'base\.kl: .*another text' "$marco" perplexity -m model.gguf -f changed --ctx 160 \
    --kl-base base.kl
head -c 5000 base.kl >cut.kl
refuses 1 'cut\.kl: .*not whole' "$marco" perplexity -m model.gguf -f text --ctx 160 --kl-base cut.kl
refuses 1 'missing\.kl' "$marco" perplexity -m model.gguf -f text --ctx 160 --kl-base missing.kl
refuses 1 'text' "$marco" perplexity -m model.gguf -f text --ctx 160 --kl-base text
refuses 2 'exclude' "$marco" perplexity -m model.gguf -f text --kl-base a --save-kl-base b
refuses 2 'kl-base-compute' "$marco" perplexity -m model.gguf -f text --kl-base base.kl \
    --kl-base-compute f32
refuses 2 'other\.gguf' "$marco" perplexity -m model.gguf -f text --ram 1G --kl-base other.gguf
refuses 1 'no/folder' "$marco" perplexity -m model.gguf -f text --save-kl-base no/folder/x.kl

# ---- imatrix
works "$marco" imatrix -m model.gguf -f text -o m.gguf --ctx 64 --json
json 'rows[0]["output"] == "m.gguf" and rows[0]["chunks"] == 10 and rows[0]["experts"] > 0'
works "$marco" imatrix -m model.gguf -f text -o m.gguf --ctx 4 --chunks 1 --overwrite
check 'unused experts are told' grep -Eq '^[0-9]+ of [0-9]+ experts were never used' err
works "$marco" imatrix -m model.gguf -f text -o m.dat --ctx 64 -q
check 'quiet' [ ! -s err ]
check 'the older form' [ -s m.dat ]
refuses 1 'm\.dat.*exists' "$marco" imatrix -m model.gguf -f text -o m.dat
refuses 1 'too few' "$marco" imatrix -m model.gguf -f short -o new.gguf --ctx 64
refuses 2 'no output: give -o' "$marco" imatrix -m model.gguf -f text
refuses 2 'no text: give -f' "$marco" imatrix -m model.gguf -o new.gguf
refuses 2 'no model: give -m' "$marco" imatrix -f text -o new.gguf
check 'nothing is left' [ ! -e new.gguf ]
# ---- an output that is the model itself
refuses 2 "that is the model" "$marco" perplexity -m model.gguf -f text --ctx 160 --save-kl-base ./model.gguf --overwrite
refuses 2 "that is the model" "$marco" imatrix -m model.gguf -f text -o ./model.gguf --overwrite

finish

#!/bin/sh
# marco synth, convert, upcycle and inspect: what they write, and what they refuse.
. "$(dirname "$0")/common.sh"

# ---- synth
works "$marco" synth --list
check 'the shapes' grep -q '^marco-mini ' out
works "$marco" synth --list --json
json 'any(shape["name"] == "marco-nano" for shape in rows[0])'
works "$marco" synth tiny-qwen3moe a.gguf --seed 1 --json
json 'rows[0]["output"] == "a.gguf" and rows[0]["bytes"] > 1000'
works "$marco" synth tiny-qwen3moe b.gguf --seed 1 -t 3
check 'the same seed, the same bytes' cmp a.gguf b.gguf
works "$marco" synth tiny-qwen3moe c.gguf --seed 2
check 'another seed, other bytes' sh -c '! cmp -s a.gguf c.gguf'
refuses 1 'a\.gguf' "$marco" synth tiny-qwen3moe a.gguf
works "$marco" synth tiny-qwen3moe a.gguf --overwrite --quiet --seed 1
mkfifo pipe.gguf
refuses 1 "is a device or a pipe" "$marco" synth tiny-qwen3moe pipe.gguf --overwrite --quiet
check "the pipe is still there" test -p pipe.gguf
check 'overwritten' cmp a.gguf b.gguf
refuses 1 'gigantic' "$marco" synth gigantic g.gguf
refuses 1 'Q9_9' "$marco" synth tiny-qwen3moe g.gguf --type Q9_9
refuses 1 'no/such/folder' "$marco" synth tiny-qwen3moe no/such/folder/g.gguf
refuses 1 'nowhere' "$marco" synth tiny-qwen3moe g.gguf --tokenizer nowhere

# ---- convert, and that nothing is lost on the way
works "$marco" synth tiny-qwen3moe f32.gguf --type F32
works "$marco" convert f32.gguf folder
check 'a folder' [ -f folder/config.json ]
works "$marco" convert -m folder back.gguf
for model in folder back.gguf; do
    works "$marco" score -m $model --ids 1,2,3,4,5 --top 2 --compute f32 --json
    cp out $model.scores 2>/dev/null || cp out scores."$model"
done
works "$marco" score -m f32.gguf --ids 1,2,3,4,5 --top 2 --compute f32 --json
check 'the same bits there' cmp out folder.scores
check 'the same bits and back' cmp out back.gguf.scores
works "$marco" convert f32.gguf q8.gguf --type Q8_0 --json
json 'rows[0]["output"] == "q8.gguf"'
refuses 1 'folder' "$marco" convert f32.gguf folder
works "$marco" convert f32.gguf folder --overwrite
refuses 1 'nowhere' "$marco" convert nowhere out.gguf
refuses 1 'out\.gguf|Q9_9' "$marco" convert f32.gguf out.gguf --type Q9_9

# ---- upcycle
works "$marco" synth tiny-qwen3 dense.gguf --type F32
cycle="$marco upcycle --from dense.gguf --experts 8 --expert-dim 64 --top-k 4"
# shellcheck disable=SC2086 # words
{
    works $cycle --to moe.gguf --scale down --drop 0 --router virtual-group --type F32
    works "$marco" inspect -m moe.gguf --json
    cp out moe.json
    works "$marco" score -m dense.gguf --ids 1,2,3,4,5 --compute f32 --json
    cp out dense.scores
    works "$marco" score -m moe.gguf --ids 1,2,3,4,5 --compute f32 --json
    check 'an exact upcycle scores as its parent' python3 -c '
import json
a, b = ([json.loads(line)["logprob"] for line in open(name)] for name in ("dense.scores", "out"))
assert all(abs(x - y) < 1e-3 for x, y in zip(a[1:], b[1:])), (a, b)'
    works "$marco" run -m moe.gguf -p a -n 1
    check 'says that its copies are identical' grep -qi 'identical' err
    works $cycle --to one.gguf --seed 3
    works $cycle --to two.gguf --seed 3 -t 3
    check 'the same seed, the same bytes' cmp one.gguf two.gguf
    refuses 1 'one\.gguf' $cycle --to one.gguf
}
refuses 1 'experts|slices|multiple' \
    "$marco" upcycle --from dense.gguf --to x.gguf --experts 7 --expert-dim 64 --top-k 4
refuses 1 'expert.dim|width|divide' \
    "$marco" upcycle --from dense.gguf --to x.gguf --experts 8 --expert-dim 60 --top-k 4
refuses 1 'top.k' \
    "$marco" upcycle --from dense.gguf --to x.gguf --experts 8 --expert-dim 64 --top-k 9
refuses 1 'drop' "$marco" upcycle --from dense.gguf --to x.gguf --experts 8 --expert-dim 64 --top-k 4 \
    --drop 2
refuses 1 'dense|experts' \
    "$marco" upcycle --from moe.gguf --to x.gguf --experts 8 --expert-dim 64 --top-k 4

# ---- inspect
works "$marco" inspect -m a.gguf
check 'the architecture' grep -Eq 'qwen3moe' out
works "$marco" inspect a.gguf --json
check 'an object' python3 -c '
import json
assert json.load(open("out"))["architecture"] == "qwen3moe"'

check 'nothing half-made is left' sh -c '! ls -A | grep -Ev "^(out|err|line|.*\.scores|[a-z0-9]*\.gguf|moe\.json|folder)$"'
check 'no refused output exists' [ ! -e x.gguf ] && [ ! -e g.gguf ] && [ ! -e out.gguf ]
finish

#!/bin/sh
# Going on with a run whose model has gone, with other settings, and what is refused because it
# would do nothing or begin anew in silence.
. "$(dirname "$0")/common.sh"

sentences 400 >text.txt
works "$marco" synth tiny-qwen3moe model --type F32
works "$marco" data --tokenizer model --to data --lines --valid 0.1 text.txt
cat >recipe.json <<'JSON'
{
  "model": "model",
  "data": {"sources": ["data"]},
  "seq_len": 32, "batch": 4, "steps": 6,
  "dropout": {"what": "experts", "rate": 0.2, "end_rate": 0},
  "checkpoint": {"every": 2, "keep_last": 9}
}
JSON
last=checkpoints/step-00000006

# same A B: the last checkpoints are the same, every file but for where the model was.
same() {
    for file in "$1/$last"/*; do
        case $file in
        */trainer.json) ;;
        *) check "$2: the same $(basename "$file")" cmp "$file" "$2/$last/$(basename "$file")" ;;
        esac
    done
}

# without_model RUN OPTION...: the run's last steps once more, when its model is somewhere else.
without_model() {
    run=$1
    shift
    works "$marco" train recipe.json --to "$run" "$@"
    cp -r "$run" "$run-moved"
    rm -r "$run-moved/$last"
    mv model elsewhere
    works "$marco" train recipe.json --to "$run-moved" "$@"
    check "$run: it goes on" grep -q 'trained 2 steps' err
    mv elsewhere model
    same "$run" "$run-moved"
}

# ---- the model may go

without_model plain
without_model adapted --set lora.rank=2
without_model half --set weights=bf16
without_model shape --set 'model={"architecture": "qwen3moe", "tokenizer": "model", "layers": 2,
    "dim": 32, "heads": 2, "experts": 4, "experts_used": 2, "expert_dim": 16, "vocab": 1000}'
works "$marco" convert model model.gguf
mkdir container
mv model.gguf container/
works "$marco" train recipe.json --to gguf --set model=container/model.gguf
cp -r gguf gguf-moved
rm -r "gguf-moved/$last" container
works "$marco" train recipe.json --to gguf-moved --set model=container/model.gguf
same gguf gguf-moved

rm -r "gguf-moved/$last"
works "$marco" train recipe.json --to gguf-moved
check 'another path is noted' grep -q 'note: the run was begun from a model at another path' err
same gguf gguf-moved

# Begun anew, it is needed; what there is stays until it is there.
mv model elsewhere
refuses 1 'model' "$marco" train recipe.json --to plain-moved --restart
check 'nothing was removed' [ -e "plain-moved/$last/trainer.json" ]
mv elsewhere model

# ---- other settings

rm -r "plain-moved/$last"
works "$marco" train recipe.json --to plain-moved --set optimizer.lr=1e-5 --set optimizer.clip=0.5
grep '"kind":"step"' plain-moved/metrics.jsonl | tail -n 2 >out
json 'all(row["step"] > 4 and row["lr"] <= 1e-5 for row in rows)'
works "$marco" train recipe.json --to plain-moved --set steps=8
check 'it was made longer' [ -e plain-moved/checkpoints/step-00000008 ]

# ---- damage is not forgotten

cp -r plain damaged
for step in damaged/checkpoints/*; do
    truncate -s 1000 "$step/model.safetensors"
done
"$marco" train recipe.json --to damaged >out 2>err
check 'damage ends it' grep -q 'no checkpoint is whole, and there are 3 damaged' err
refuses 1 'no checkpoint is whole, and there are 3 damaged' "$marco" train recipe.json --to damaged
works "$marco" train recipe.json --to damaged --restart
same plain damaged
cp -r plain counters
sed 's/"total_tokens": [0-9]*/"total_tokens": -1/' "plain/$last/trainer.json" \
    >"counters/$last/trainer.json"
refuses 1 'total_tokens' "$marco" train recipe.json --to counters
sed 's/"total_tokens": [0-9]*/"total_tokens": 9223372036854775807/' "plain/$last/trainer.json" \
    >"counters/$last/trainer.json"
refuses 1 'total_tokens' "$marco" train recipe.json --to counters

# ---- what would train nothing

refuses 1 'train: no tensor of this model fits "routers"' \
    "$marco" train recipe.json --to x --set 'train=["routers"]'
refuses 1 'lora.rank is 2' "$marco" train recipe.json --to x --set lora.rank=2 \
    --set lora.attention=false --set lora.experts=false
refuses 1 'nothing would be trained' "$marco" train recipe.json --dry-run --set 'freeze=["*"]'
works "$marco" synth tiny-qwen3 dense
refuses 1 '"balance.z_loss" is for models with experts' "$marco" train recipe.json --to x \
    --set model=dense --set dropout.what=none --set balance.z_loss=0.1
refuses 1 '"dropout.what" is for models with experts' "$marco" train recipe.json --to x \
    --set model=dense
check 'nothing was made' [ ! -e x ]

finish

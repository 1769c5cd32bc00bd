#!/bin/sh
# No room for the output, no memory for the model: an error, and nothing left in place.
. "$(dirname "$0")/common.sh"

works "$marco" synth tiny-qwen3moe model.gguf --type F32
seq 5000 >text.txt
for command in "convert model.gguf out.gguf" "convert model.gguf out" "synth tiny-qwen3moe out.gguf" \
    "synth tiny-qwen3moe out" "data --tokenizer model.gguf --to out ../text.txt" \
    "tokenizer train --to out --vocab-size 800 --quiet ../text.txt"; do
    mkdir room
    # A limit on the size of files, in blocks of 512 bytes, stands in for a full disk.
    # shellcheck disable=SC2086 # words
    (
        ulimit -f 8
        trap '' XFSZ
        cd room && ln -s ../model.gguf model.gguf && exec "$marco" $command
    ) >out 2>err
    status=$?
    check "exit status $status: $command" [ $status -eq 1 ]
    check "one line: $command" [ "$(wc -l <err)" -eq 1 ]
    check "the file is named: $command" grep -q 'out' err
    check "nothing is left: $command" [ "$(ls -A room)" = model.gguf ]
    rm -rf room
done

# Training: what came before its first checkpoint stays, and with room the same command ends it.
works "$marco" data --tokenizer model.gguf --to data --lines text.txt
cat >recipe.json <<'JSON'
{"model": "model.gguf", "data": {"sources": ["data"]}, "seq_len": 32, "batch": 2, "steps": 2,
 "valid": {"every": 0}}
JSON
while read -r blocks file; do
    (
        ulimit -f "$blocks"
        trap '' XFSZ
        exec "$marco" train recipe.json --to trained --quiet
    ) >out 2>err
    status=$?
    check "training without room for $file: exit status $status" [ $status -eq 1 ]
    check "training without room for $file: one line" [ "$(wc -l <err)" -eq 1 ]
    check "training without room for $file: it is named" grep -q "trained/.*$file" err
    check "training without room for $file: nothing half-made" \
        [ -z "$(find trained -name 'step-*' -o -name '*.tmp*' -o -name '*.safetensors')" ]
done <<'END'
1 recipe.json
4 metrics.jsonl
16 step-00000002
END
works "$marco" train recipe.json --to trained --quiet
check 'training with room' [ -d trained/checkpoints/step-00000002 ]

if [ "${MARCO_SANITIZED:-}" = '' ]; then
    works "$marco" synth qwen3-0.6b large.gguf --layers 1 --type Q8_0
    checks=$((checks + 1))
    (
        # shellcheck disable=SC3045 # dash and bash both have it
        ulimit -v 160000
        exec "$marco" run -m large.gguf -p a -n 1 -t 1
    ) >out 2>err
    status=$?
    check "no memory: exit status $status" [ $status -eq 1 ]
    check 'no memory: one line that says so' grep -Eq '^marco run: .*memory' err
fi
finish

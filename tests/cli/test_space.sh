#!/bin/sh
# No room for the output, no memory for the model: an error, and nothing left in place.
. "$(dirname "$0")/common.sh"

works "$marco" synth tiny-qwen3moe model.gguf --type F32
seq 5000 >text.txt
for command in "convert model.gguf out.gguf" "convert model.gguf out" "synth tiny-qwen3moe out.gguf" \
    "synth tiny-qwen3moe out" "data --tokenizer model.gguf --to out ../text.txt"; do
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

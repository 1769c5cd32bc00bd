#!/bin/sh
# Help, version, man pages, and what every command says to a wrong command line.
. "$(dirname "$0")/common.sh"

works "$marco" --version
check 'version' grep -Eq '^marco [0-9]+\.[0-9]+\.[0-9]+ \(' out
works "$marco" --help
check 'overview' grep -q '^  upcycle ' out
refuses 2 "no command 'frobnicate'" "$marco" frobnicate

for command in run chat score perplexity imatrix tokenize detokenize inspect convert quantize data upcycle \
    report synth bench serve pull list rm; do
    works "$marco" $command --help
    check "$command: usage" grep -q "^Usage: marco $command" out
    check "$command: example" grep -q '^Example:' out
    check "$command: the example calls it" grep -q "  .*marco $command" out
    check "$command: no line past 100 columns" sh -c '! grep -v "^  .*marco" out | grep -q ".\{101\}"'
    cp out help
    works "$marco" help --man $command
    check "$command: a man page" grep -q '^\.TH' out
    # Every option of the help stands in the man page.
    sed -n 's/^  [-a-z, ]*--\([a-z0-9-]*\).*/\1/p' help | while read -r option; do
        escaped=$(printf '%s' "$option" | sed 's/-/\\\\-/g')
        grep -q "\\\\-\\\\-$escaped" out || echo "$option"
    done >lacking
    check "$command: options in the man page: $(cat lacking)" [ ! -s lacking ]
    if command -v man >/dev/null && man --version >/dev/null 2>&1; then
        cp out page.1
        check "$command: the page formats without warnings" \
            sh -c '[ -z "$(man --warnings -l page.1 2>&1 >/dev/null)" ]'
    fi
    refuses 2 "unknown option '--frobnicate'" "$marco" $command --frobnicate
    refuses 2 "unknown option '-Z'" "$marco" $command -Z
    refuses 2 "see 'marco $command --help'" "$marco" $command --frobnicate
    refuses 2 "unexpected argument 'x'|needs" "$marco" $command x x x x
done
for command in run chat score tokenize detokenize inspect serve; do
    refuses 2 'give -m MODEL' "$marco" $command </dev/null
    [ $command != run ] || command='run -p x'
    # shellcheck disable=SC2086 # words
    refuses 1 'nowhere\.gguf' "$marco" $command -m nowhere.gguf </dev/null
done
refuses 2 "'-m' needs a value" "$marco" run -m
for bad in abc '' 3x 99999999999 -7 1e3 ' 5' 0x10; do
    refuses 2 "tokens '$bad': must be a whole number" "$marco" run -m x -p y -n "$bad"
    refuses 2 "threads '$bad': must be a whole number from 1 to 1024" "$marco" run -m x -p y --threads "$bad"
done
for bad in abc '' nan inf 0x1p3 1e999 '1 '; do
    refuses 2 "temp '$bad': must be a number" "$marco" run -m x -p y --temp "$bad"
done
refuses 2 "seed '-1'" "$marco" run -m x -p y --seed -1
refuses 2 "compute 'f64': must be f32 or auto" "$marco" run -m x -p y --compute f64
refuses 2 "kv 'q4_0': must be f16, f32 or q8_0" "$marco" run -m x -p y --kv q4_0
refuses 2 'exclude each other' "$marco" run -m x -p y -f z
refuses 2 "ids: 'x' is not a token id" "$marco" score -m x --ids 1,x
refuses 2 "ids: '' is not a token id" "$marco" score -m x --ids 1,,2
refuses 2 "ids: '-1' is not a token id" "$marco" score -m x --ids -1
refuses 2 "scale 'up': must be one of cube-root, down, none" \
    "$marco" upcycle --from a --to b --scale up
refuses 2 "no preset 'huge'" "$marco" upcycle --from a --to b --preset huge
refuses 2 'needs --experts' "$marco" upcycle --from a --to b
refuses 2 'needs a shape' "$marco" synth tiny-qwen3moe
refuses 2 'needs an input and an output' "$marco" convert a
finish

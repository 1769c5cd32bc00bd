#!/bin/sh
# marco score: the format, the numbers, and that threads and chunks change no bit of them.
. "$(dirname "$0")/common.sh"

works "$marco" synth tiny-qwen3moe model.gguf --type Q8_0
ids=$(python3 -c 'print(",".join(str(i * 37 % 256) for i in range(150)))')
for compute in f32 auto; do
    works "$marco" score -m model.gguf --ids "$ids" --top 3 --compute $compute --json -t 1
    json 'len(rows) == 150 and [r["pos"] for r in rows] == list(range(150))'
    json 'rows[0]["logprob"] is None and all(r["logprob"] < 0 for r in rows[1:])'
    json 'all(r["id"] == r["pos"] * 37 % 256 for r in rows)'
    json 'all(len(r["top"]) == 3 and r["top"] == sorted(r["top"], key=lambda t: (-t[1], t[0]))
              for r in rows)'
    cp out reference
    for threads in 2 3 4; do
        works "$marco" score -m model.gguf --ids "$ids" --top 3 --compute $compute --json -t $threads
        check "$compute: $threads threads, the same bits" cmp reference out
    done
    for chunk in 1 7 64 1000; do
        works "$marco" score -m model.gguf --ids "$ids" --top 3 --compute $compute --json \
            -t 2 --chunk $chunk
        check "$compute: chunks of $chunk, the same bits" cmp reference out
    done
done

# Probabilities of the whole vocabulary make 1, and the next token's is the one in the list.
works "$marco" score -m model.gguf --ids 1,2,3 --top 100000 --compute f32 --json
json 'all(abs(sum(math.exp(p) for _, p in r["top"]) - 1) < 1e-9 for r in rows)'
json 'all(dict(map(tuple, rows[i]["top"]))[rows[i + 1]["id"]] == rows[i + 1]["logprob"]
          for i in range(2))'

# Text, from anywhere; people's form.
works "$marco" score -m model.gguf -p 'abc' --json
cp out given
works sh -c 'printf "abc\n" | "$1" score -m model.gguf --json' - "$marco"
check 'standard input' cmp given out
printf 'abc\r\n' >text
works "$marco" score -m model.gguf -f text --json
check 'a file' cmp given out
json '[r["id"] for r in rows] == [97, 98, 99]'
works "$marco" score -m model.gguf -p 'abc' --top 2
check 'perplexity' grep -q '^2 tokens, mean logprob -.*perplexity' out

refuses 1 'vocabulary' "$marco" score -m model.gguf --ids 1,100000
refuses 1 'empty' "$marco" score -m model.gguf -p ''
refuses 1 '9.*8|8.*9' "$marco" score -m model.gguf --ctx 8 --ids 1,2,3,4,5,6,7,8,9
finish

#!/bin/sh
# marco run: replies, options, statistics, and wrong prompts.
. "$(dirname "$0")/common.sh"

works "$marco" synth tiny-qwen3moe model.gguf --type Q8_0
works "$marco" run -m model.gguf -p 'hello' --raw -n 16 --temp 0 --ignore-eos
check 'statistics' grep -Eq '^decode +[0-9.]+ tokens/s' err
check 'memory' grep -Eq '^memory +[0-9.]+ .B at most' err
check 'parameters' grep -Eq '^parameters +[0-9.]+ . active of' err
check 'random weights are said to be random' grep -qi 'random' err
cp out greedy
check 'a reply' [ "$(wc -c <greedy)" -gt 4 ]
works "$marco" run -m model.gguf -p 'hello' --raw -n 16 --temp 0 --ignore-eos --quiet
check 'quiet' [ ! -s err ]
check 'the same reply' cmp greedy out
works sh -c 'printf "hello\n" | "$1" run -m model.gguf --raw -n 16 --temp 0 --ignore-eos' - "$marco"
check 'standard input' cmp greedy out
printf 'hello' >prompt
works "$marco" run -m model.gguf -f prompt -n 16 --temp 0 --ignore-eos --raw --chunk 1 -t 2
check 'a file' cmp greedy out

works "$marco" run -m model.gguf -p 'hello' -n 16 --temp 0 --ignore-eos --json --raw
json 'len(rows) == 1 and rows[0]["finish"] == "length" and rows[0]["stats"]["reply_tokens"] == 16'
json 'rows[0]["stats"]["prompt_tokens"] == 5 and rows[0]["stats"]["total_params"] > 0'
json 'rows[0]["text"].encode() == open("greedy", "rb").read()[:-1]'


# The KV cache as it is asked for: bytes of one page of 64 tokens.
for kv in f16:32768 f32:65536 q8_0:17408; do
    works "$marco" run -m model.gguf -p 'hello' -n 16 --temp 0 --raw --json --kv "${kv%:*}"
    json "rows[0]['stats']['kv_bytes'] == ${kv#*:}"
done
works "$marco" run -m model.gguf -p 'hello' -n 1 --raw --json --compute f32
json 'rows[0]["stats"]["kv_bytes"] == 65536'
works "$marco" synth tiny-llama narrow.gguf
refuses 1 'narrow.gguf.*Q8_0.*multiple of 32, not 16.*F16' \
    "$marco" run -m narrow.gguf -p a --raw --kv q8_0

sample='--raw -n 16 --temp 1.5 --ignore-eos --quiet'
# shellcheck disable=SC2086 # words
{
    works "$marco" run -m model.gguf -p 'hello' $sample --seed 7
    cp out seven
    works "$marco" run -m model.gguf -p 'hello' $sample --seed 7
    check 'the same seed, the same reply' cmp seven out
    works "$marco" run -m model.gguf -p 'hello' $sample --seed 8
    check 'another seed, another reply' sh -c '! cmp -s seven out'
    works "$marco" run -m model.gguf -p 'hello' $sample --seed 7 --top-k 1
    check 'top-k 1 is greedy' cmp greedy out
}
works "$marco" run -m model.gguf -p 'hello' -n 3 --temp 0 --logit-bias 65=1000 --quiet
check 'logit bias' sh -c 'echo AAA | cmp - out'
works "$marco" run -m model.gguf -p 'hello' -n 9 --temp 0 --logit-bias 65=1000 --stop AAAA --json
json 'rows[0]["text"] == "" and rows[0]["finish"] == "stop"'
works "$marco" run -m model.gguf -p 'hello' --ctx 20 --temp 0 --ignore-eos --json --raw
json 'rows[0]["finish"] == "length" and rows[0]["stats"]["prompt_tokens"] == 5'

refuses 1 'the prompt is empty' "$marco" run -m model.gguf -p ''
refuses 1 'standard input: the prompt is empty' "$marco" run -m model.gguf </dev/null
refuses 1 'nowhere' "$marco" run -m model.gguf -f nowhere
refuses 1 '11.*8|8.*11' "$marco" run -m model.gguf -p 'Hello world' --raw --ctx 8
refuses 1 '[tT]emperature' "$marco" run -m model.gguf -p a --temp -1
refuses 1 'top.p' "$marco" run -m model.gguf -p a --top-p 1.5
refuses 2 'ID=NUMBER' "$marco" run -m model.gguf -p a --logit-bias 5
refuses 1 'bias|vocabulary' "$marco" run -m model.gguf -p a --logit-bias 100000=1
refuses 1 'chat.template' "$marco" run -m model.gguf -p a --chat-template klingon

# As the user's turn of a chat; without a template, as it stands.
works "$marco" run -m model.gguf -p 'hello' -n 4 --json
json 'rows[0]["stats"]["prompt_tokens"] > 10'
works "$marco" synth tiny-qwen3moe plain
check 'a folder without a template' python3 -c '
import json
config = json.load(open("plain/tokenizer_config.json"))
del config["chat_template"]
json.dump(config, open("plain/tokenizer_config.json", "w"))'
works "$marco" run -m plain -p 'hello' -n 4 --json
json 'rows[0]["stats"]["prompt_tokens"] == 5'
refuses 1 'no chat template' "$marco" run -m plain -p a --system b
works "$marco" run -m plain -p a --system b -n 4 --chat-template chatml
refuses 1 'not UTF-8 at byte 1; --raw' "$marco" run -m model.gguf -p "$(printf 'a\377')"
works "$marco" run -m model.gguf -p "$(printf 'a\377')" --raw -n 4
refuses 1 'chat template' "$marco" chat -m plain </dev/null
check 'another template' python3 -c '
import json
config = json.load(open("plain/tokenizer_config.json"))
config["chat_template"] = "{{ messages | length }}"
json.dump(config, open("plain/tokenizer_config.json", "w"))'
refuses 1 'chat template.*--raw' "$marco" run -m plain -p a
works "$marco" run -m plain -p a --raw -n 4
[ ! -w /dev/full ] || {
    checks=$((checks + 1))
    "$marco" run -m model.gguf -p a -n 4 >/dev/full 2>err && fail 'a full disk goes unnoticed'
    check 'a full disk is named' grep -q 'standard output: No space left' err
}
finish

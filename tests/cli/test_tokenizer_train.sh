#!/bin/sh
# marco tokenizer train, and what the other commands make of its folder.
. "$(dirname "$0")/common.sh"

printf 'the cat sat on the mat\nthe hat that the cat had\n' >text.txt
printf '{"text": "the cat"}\n{"messages": [{"role": "user", "content": "that mat"}]}\n' >more.jsonl

works "$marco" tokenizer train --to made --vocab-size 266 text.txt more.jsonl
check 'a summary' grep -Eq '^wrote made: 266 tokens from [0-9]+ B of text, .* bytes a token' err
check 'both files' sh -c 'ls made | tr "\n" " " | grep -qx "tokenizer.json tokenizer_config.json "'
printf 'the cat<|im_end|>\n' >line
works "$marco" tokenize -m made <line
json 'rows[0][-1] == 265 and len(rows[0]) < 6'
works "$marco" tokenize -m made/tokenizer.json --no-special <line
json '265 not in rows[0]'
works "$marco" tokenize -m made <line
mv out ids
works "$marco" detokenize -m made <ids
check 'the text comes back' cmp -s out line

refuses 1 'made' "$marco" tokenizer train --to made --vocab-size 275 text.txt
works "$marco" tokenizer train --to made --vocab-size 9999 --overwrite --json text.txt
json 'rows[0]["output"] == "made" and 259 < rows[0]["vocab_size"] < 400'
json 'rows[0]["merges"] == rows[0]["vocab_size"] - 259 and rows[0]["text_bytes"] == 48'
works "$marco" tokenizer train --to less --vocab-size 9999 text.txt
check 'a smaller vocabulary is told' grep -Eq '^note: the vocabulary is [0-9]+ and not 9999' err
works "$marco" tokenizer train --to more --vocab-size 9999 --min-frequency 1 -q text.txt
check 'and the frequency matters' test "$(wc -c <more/tokenizer.json)" -gt \
    "$(wc -c <less/tokenizer.json)"
check 'quiet' test ! -s err
works "$marco" tokenizer train --to first -q -t 1 --vocab-size 270 --max-bytes 23 text.txt more.jsonl
head -n 1 text.txt >head.txt
head -n 1 more.jsonl >head.jsonl
works "$marco" tokenizer train --to second -q -t 3 --vocab-size 270 head.txt head.jsonl
check 'the beginnings of files' diff -r first second

works "$marco" tokenizer train --to own -q --vocab-size 265 --special '<s>' --special '</s>' text.txt
printf '<s>the</s>\n' >line
works "$marco" tokenize -m own <line
json 'rows[0][0] == 263 and rows[0][-1] == 264'

# A model takes it.
works "$marco" synth tiny-qwen3moe model.gguf --tokenizer made -q
works "$marco" tokenize -m made <text.txt
mv out ids
works "$marco" tokenize -m model.gguf <text.txt
check 'the same ids in a model' cmp -s out ids

refuses 2 'train' "$marco" tokenizer
refuses 2 "must be 'train'" "$marco" tokenizer learn --to x --vocab-size 300 text.txt
refuses 2 'needs --to' "$marco" tokenizer train --vocab-size 300 text.txt
refuses 2 'needs --to' "$marco" tokenizer train --to x text.txt
refuses 2 'needs --to' "$marco" tokenizer train --to x --vocab-size 300
refuses 2 'vocab-size' "$marco" tokenizer train --to x --vocab-size 0 text.txt
refuses 2 'min-frequency' "$marco" tokenizer train --to x --vocab-size 300 --min-frequency 0 text.txt
refuses 2 'max-bytes' "$marco" tokenizer train --to x --vocab-size 300 --max-bytes 3x text.txt
refuses 1 '258: must be 259' "$marco" tokenizer train --to x --vocab-size 258 text.txt
refuses 1 'absent.txt' "$marco" tokenizer train --to x --vocab-size 300 text.txt absent.txt
refuses 1 "'the' could be learnt" "$marco" tokenizer train --to x --vocab-size 300 --special the text.txt
printf 'good\nb\377d\n' >bad.txt
refuses 1 'bad.txt: line 2 is not valid UTF-8' "$marco" tokenizer train --to x --vocab-size 300 bad.txt
printf '{"text": "good"}\n{"text": 3}\n' >bad.jsonl
refuses 1 'bad.jsonl:2: ' "$marco" tokenizer train --to x --vocab-size 300 bad.jsonl
: >empty.txt
refuses 1 'no text' "$marco" tokenizer train --to x --vocab-size 300 empty.txt
check 'nothing is left of what failed' test ! -e x
check 'nor under another name' sh -c '! ls -A | grep -q "^\.\|tmp"'
finish

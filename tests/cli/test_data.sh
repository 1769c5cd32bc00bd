#!/bin/sh
# marco data: text to tokens, and what it says of text that cannot be used.
. "$(dirname "$0")/common.sh"

works "$marco" synth tiny-qwen3 model
printf 'one\n\ntwo words\nthree more words\n' >a.txt
printf '{"text": "from JSON"}\n{"text": "again"}\n' >b.jsonl

works "$marco" data --tokenizer model --to made --lines a.txt b.jsonl
check 'documents and tokens' grep -q '^5 documents, 42 tokens to train on, 1.00 bytes of text a token$' err
check 'empty lines' grep -q '^note: 1 empty document left out$' err
check 'what was written' grep -Eq '^wrote made \(' err

check 'the folder' [ "$(ls made)" = "data.json
train-00000.ids" ]
refuses 1 'made already exists' "$marco" data --tokenizer model --to made a.txt
works "$marco" data --tokenizer model --to made a.txt --overwrite --json
json 'rows[0]["documents"] == 1 and rows[0]["tokens"] == 32 and rows[0]["first_bad"] is None'
check 'data.json' python3 -c '
import json
d = json.load(open("made/data.json"))
assert d["kind"] == "text" and d["n_vocab"] == 259 and len(d["tokenizer"]) == 64, d
assert d["splits"]["train"]["documents"] == 1 and d["files"][0]["path"] == "a.txt", d'

# ---- the same bytes from any number of threads, and none of the tokens in the text
python3 -c '
import random
random.seed(1)
for i in range(5000):
    print("line", i, "<|im_end|>", "".join(random.choices("abc \u00e9\u4e2d", k=random.randrange(90))))
' >many.txt
works "$marco" data --tokenizer model --to one --lines --valid 0.1 many.txt -t 1
check 'held out' grep -Eq '^[45][0-9]{2} documents, [0-9]+ tokens held out$' err
works "$marco" data --tokenizer model --to three --lines --valid 0.1 many.txt -t 3 -q
check 'quiet' [ ! -s err ]
check 'the same bytes' diff -r one three
check 'ids are those of the text' python3 -c '
import struct
lines = {line.rstrip("\n").encode() for line in open("many.txt", encoding="utf-8")}
found = set()
for name in "train", "valid":
    data = open(f"one/{name}-00000.ids", "rb").read()
    n_documents, n_ids = struct.unpack("<2Q", data[-24:-8])
    ids = struct.unpack_from(f"<{n_ids}i", data, 64)
    ends = struct.unpack_from(f"<{n_documents + 1}Q", data, (64 + 4 * n_ids + 7) // 8 * 8)
    found |= {bytes(ids[a:b]) for a, b in zip(ends, ends[1:])}
assert found == lines, len(found)'

# ---- conversations
cat >chat.jsonl <<'END'
{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
{"messages": [{"role": "user", "content": "Hi"}]}
END
refuses 1 'chat\.jsonl, line 2: .*no turn of the assistant' \
    "$marco" data --tokenizer model --to talk --chat chat.jsonl
works "$marco" data --tokenizer model --to talk --chat chat.jsonl --skip-bad
check 'what was skipped' grep -q 'note: 1 document could not be used; the first: chat.jsonl, line 2: ' err
check 'nothing half-written' [ "$(ls -d .??* 2>/dev/null)" = '' ]

# ---- refusals
printf 'fine\nbro\377ken\n' >bad.txt
printf '{"text": "fine"}\n{"text": 5}\n{"txt": ""}\n{"text": "\n' >bad.jsonl
refuses 1 'bad\.txt, line 2: byte 4 \(0xFF\) is not valid UTF-8' \
    "$marco" data --tokenizer model --to x --lines bad.txt
refuses 1 'bad\.jsonl, line 2: "text" is a number' "$marco" data --tokenizer model --to x bad.jsonl
refuses 1 'many\.txt, line 1: longer than the 16 bytes' \
    "$marco" data --tokenizer model --to x --lines many.txt --max-line 16
works "$marco" data --tokenizer model --to skipped --lines bad.txt bad.jsonl --skip-bad --json
json 'rows[0]["bad"] == 4 and rows[0]["documents"] == 2 and "bad.txt, line 2" in rows[0]["first_bad"]'
refuses 1 'nowhere\.txt' "$marco" data --tokenizer model --to x a.txt nowhere.txt
refuses 1 'nowhere' "$marco" data --tokenizer nowhere --to x a.txt
refuses 2 'needs --tokenizer' "$marco" data --tokenizer model --to x
refuses 2 'valid 1' "$marco" data --tokenizer model --to x a.txt --valid 1
refuses 2 'max-line' "$marco" data --tokenizer model --to x a.txt --max-line much
refuses 2 'exclude each other' "$marco" data --tokenizer model --to x chat.jsonl --chat --lines
refuses 2 'is for --chat' "$marco" data --tokenizer model --to x a.txt --chat-template chatml
refuses 1 'no_such' "$marco" data --tokenizer model --to x chat.jsonl --chat --chat-template no_such
# What a killed process left is removed.
gone=$(sh -c 'echo $$')
mkdir ".again.tmp-$gone-0"
echo half >".again.tmp-$gone-0/train-00000.ids"
works "$marco" data --tokenizer model --to again a.txt
check 'nothing is left of the killed' [ ! -e ".again.tmp-$gone-0" ]
mkdir mine && touch mine/letter.txt
refuses 1 "holds 'letter.txt'" "$marco" data --tokenizer model --to mine a.txt --overwrite
check 'nothing left behind' [ ! -e x ]
finish

#!/bin/sh
# marco chat on a pipe. (tests/cli/terminal.py drives it on a terminal.)
. "$(dirname "$0")/common.sh"

works "$marco" synth tiny-qwen3moe model.gguf
chat="$marco chat -m model.gguf -n 8 --temp 0 --ignore-eos"
# shellcheck disable=SC2086 # words
{
    printf 'Hello\nAnd now?\n/save one.json\n/quit\nnever read\n' >lines
    works $chat --json <lines
    json 'len(rows) == 2 and all(r["role"] == "assistant" and r["finish"] == "length" for r in rows)'
    cp out talk
    cp one.json out
    check 'a conversation is a file' python3 -c '
import json
one = json.load(open("one.json"))
talk = [json.loads(line) for line in open("talk")]
assert [m["role"] for m in one] == ["user", "assistant"] * 2, one
assert [one[1]["content"], one[3]["content"]] == [t["content"] for t in talk]'

    # The cache kept between turns changes nothing: the second reply from the loaded start.
    check 'its first half' python3 -c '
import json
json.dump(json.load(open("one.json"))[:2], open("half.json", "w"))'
    printf '/load half.json\nAnd now?\n' >lines
    works $chat --json <lines
    check 'the same reply after /load' sh -c 'tail -n 1 talk | cmp - out'
    printf 'Other\n/reset\nHello\nAnd now?\n' >lines
    works $chat --json <lines
    check 'the same reply after /reset' sh -c 'tail -n 2 out | cmp - talk'

    printf '/system Be brief.\n/save two.json\n/system\n/save three.json\n/help\n/stats\n' >lines
    works $chat <lines
    check '/system' grep -q 'Be brief' two.json
    check '/system without a text' sh -c '! grep -q system three.json'
    check '/help' grep -q '^/stats' out
    check '/stats' grep -q '^parameters' out
    printf '\n\n' | works $chat --system 'You know.'

    for bad in '{}' '[' '[{"role":"user"}]' '[{"role":"user","content":1}]' '[1]' \
        '[{"role":"king","content":"a"}]' '[{"role":"user","content":"a"},{"role":"system","content":"b"}]' \
        '[{"role":"user","role":"user","content":"a"}]'; do
        echo "$bad" >bad.json
        echo '/load bad.json' >lines
        checks=$((checks + 1))
        $chat --json --quiet <lines >out 2>err && fail "loads $bad"
        check "names the file: $bad" grep -q '^marco chat: bad.json: ' err
    done
    for bad in '/load nowhere.json' '/save no/such/folder' '/load' '/save' '/dance'; do
        echo "$bad" >lines
        refuses 1 'nowhere.json|no/such/folder|needs a file|no command' $chat --json --quiet <lines
    done
    # /save replaces a conversation, and nothing that is none.
    echo 'dear diary' >diary
    echo '{"role": "user"}' >object.json
    mkdir taken
    for kept in diary object.json taken no/such/folder/x.json; do
        printf 'Hello\n/save %s\n' "$kept" >lines
        checks=$((checks + 1))
        $chat --json --quiet <lines >out 2>err && fail "/save $kept goes unnoticed"
        check "/save $kept: told by name" grep -q "^marco chat: $kept" err
        json 'len(rows) == 1'
    done
    check 'the text is as it was' [ "$(cat diary)" = 'dear diary' ]
    check 'the object is as it was' [ "$(cat object.json)" = '{"role": "user"}' ]
    check 'the folder is as it was' [ -z "$(ls -A taken)" ]
    printf 'Other\n/save one.json\n' >lines
    works $chat --json --quiet <lines
    check 'a conversation is replaced' grep -q Other one.json
    check 'nothing is left beside them' sh -c '! ls | grep -E "(json|diary|taken)\."'

    printf 'bad \377 bytes\n' >lines
    refuses 1 'not UTF-8 at byte 4' $chat --json --quiet <lines
    python3 -c 'print("many words " * 300); print("few")' >lines
    checks=$((checks + 1))
    $chat --ctx 64 --json --quiet <lines >out 2>err && fail 'too long a message goes unnoticed'
    check 'full context' grep -Eq '64.*/reset' err
    json 'len(rows) == 1'
}
finish

#!/bin/sh
# marco tokenize and detokenize, with the tokenizer that synth writes: an id is a byte.
. "$(dirname "$0")/common.sh"

works "$marco" synth tiny-qwen3moe model.gguf
printf 'ab\n\nc\r\n\303\251\n\377\nlast' >text
works "$marco" tokenize -m model.gguf <text
check 'ids of bytes, a carriage return among them' sh -c \
    'printf "[97,98]\n[]\n[99,13]\n[195,169]\n[255]\n[108,97,115,116]\n" | cmp - out'
works "$marco" tokenize -m model.gguf --json --no-special --no-bos <text
json 'len(rows) == 6 and rows[0] == [97, 98]'

printf '[97,98]\n[]\n [ 99 , 13 ]\r\n[255]\n' >ids
works "$marco" detokenize -m model.gguf <ids
check 'bytes of ids' sh -c 'printf "ab\n\nc\r\n\377\n" | cmp - out'
works "$marco" detokenize -m model.gguf --json <ids
json 'rows == ["ab", "", "c\r", "\ufffd"]'
for bad in '97' '[97' '[97,]' '[,]' '[-1]' '[1.5]' '["a"]' '[97] x' '[99999999999]' '{}' ''; do
    echo "$bad" >ids
    refuses 1 'not a JSON array of token ids' "$marco" detokenize -m model.gguf <ids
done
echo '[100000]' >ids
refuses 1 '100000' "$marco" detokenize -m model.gguf <ids

# Long lines, many lines, and there and back again.
python3 -c 'print("x" * 3000000); print("\n".join(str(i) * (i % 50) for i in range(20000)))' >text
works "$marco" tokenize -m model.gguf <text
cp out ids
works "$marco" detokenize -m model.gguf <ids
check 'text comes back' cmp text out
[ ! -w /dev/full ] || {
    checks=$((checks + 1))
    "$marco" tokenize -m model.gguf <text >/dev/full 2>err && fail 'a full disk goes unnoticed'
    check 'a full disk is named' grep -q 'standard output: No space left' err
}
finish

#!/bin/sh
# Checkpoints that are not what they should be: each command refuses them in one line.
. "$(dirname "$0")/common.sh"

works "$marco" synth tiny-qwen3moe good.gguf --type Q8_0
works "$marco" synth tiny-qwen3moe good
size=$(wc -c <good.gguf)
: >empty.gguf
head -c 3 good.gguf >three.gguf
head -c 1000 good.gguf >header.gguf
head -c $((size - 1)) good.gguf >short.gguf
head -c $((size / 2)) good.gguf >half.gguf
head -c 4096 /dev/urandom >noise.gguf
{ printf 'GGUF\003\000\000\000' && head -c 4096 /dev/zero | tr '\000' '\377'; } >huge.gguf
{ printf 'GGUF\143\000\000\000' && tail -c +9 good.gguf; } >version.gguf
mkdir bare
echo '{}' >bare/config.json
mkdir broken && cp good/* broken/ && echo '{"architectures": [' >broken/config.json
mkdir other && cp good/* other/ && sed -i 's/Qwen3MoeForCausalLM/MambaForCausalLM/' other/config.json
mkdir cut && cp good/* cut/
for file in cut/*.safetensors; do
    head -c 5000 good/"$(basename "$file")" >"$file"
done
mkdir shape && cp good/* shape/
sed -i 's/"num_key_value_heads": *[0-9]*/"num_key_value_heads": 1/' shape/config.json
mkdir tokens && cp good/* tokens/ && echo 'null' >tokens/tokenizer.json
mkdir twice && cp good/* twice/
sed -i '1s/{/{"hidden_size": 8, /' twice/config.json
mkfifo pipe.gguf 2>/dev/null

for model in empty three header short half noise huge version; do
    refuses 1 "$model\.gguf" "$marco" run -m $model.gguf -p a
    refuses 1 "$model\.gguf" "$marco" convert $model.gguf out.gguf
done
for model in bare broken other cut shape tokens twice; do
    refuses 1 "$model" "$marco" run -m $model -p a
    refuses 1 "$model" "$marco" convert $model out.gguf
done
for model in empty three header noise huge version; do
    refuses 1 "$model\.gguf" "$marco" inspect -m $model.gguf
    refuses 1 "$model\.gguf" "$marco" tokenize -m $model.gguf </dev/null
done
refuses 1 'MambaForCausalLM' "$marco" inspect -m other
refuses 1 '/dev/null' "$marco" run -m /dev/null -p a
refuses 1 "'?\.'?|config" "$marco" run -m . -p a
refuses 1 'pipe\.gguf' timeout 20 "$marco" run -m pipe.gguf -p a
check 'no output in place' [ ! -e out.gguf ]

# The same threads for every command that takes them, refused before anything is read or written.
for bad in 0 1025 10000 -1; do
    for command in 'run -m good.gguf -p a' 'chat -m good.gguf' 'score -m good.gguf --ids 1,2' \
        'imatrix -m good.gguf -f /dev/null -o out.gguf' \
        'convert good.gguf out.gguf' 'upcycle good.gguf out.gguf' 'synth tiny-qwen3moe out.gguf'; do
        # shellcheck disable=SC2086 # words
        refuses 2 "threads '$bad': must be a whole number from 1 to 1024" \
            "$marco" $command --threads $bad </dev/null
    done
done
check 'no output in place' [ ! -e out.gguf ]

# Names from a file never reach the terminal raw.
refuses 1 'x' "$marco" run -m "$(printf 'a\033[31mx\nb')" -p a
check 'no escape sequence' sh -c '! grep -q "$(printf "\033")" err'

# Names that are not UTF-8, or long, do no harm in JSON.
odd=$(printf 'caf\351')
many=$(printf '%0200d/' 1 2 3 4 5 6)
mkdir -p "$many"
cp good.gguf "$odd.gguf"
cp good.gguf "$many$odd.gguf"
for model in "$odd.gguf" "$many$odd.gguf"; do
    works "$marco" run -m "$model" -p a -n 1 --mmap --json
    json '"caf\ufffd.gguf, shared" in rows[0]["stats"]["residency"]'
done
works "$marco" convert good.gguf "$odd.out.gguf" --json
json 'rows[0]["output"] == "caf\ufffd.out.gguf"'
works "$marco" quantize good.gguf "$odd.out.gguf" --type Q4_0 --overwrite --json
json 'rows[0]["output"] == "caf\ufffd.out.gguf"'
printf '%0300d' 7 >letters
works "$marco" imatrix -m good.gguf -f letters -o "$odd.imatrix" --ctx 8 --json
json 'rows[0]["output"] == "caf\ufffd.imatrix"'
finish

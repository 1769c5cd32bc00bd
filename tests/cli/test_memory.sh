#!/bin/sh
# The memory of marco run: weights + KV cache + the larger of 10% and 64 MiB.
. "$(dirname "$0")/common.sh"

prompt=$(python3 -c 'print("word " * 300)')
for shape in 'marco-nano --layers 1' 'qwen3-0.6b --layers 4'; do
    for type in Q8_0 F16; do
        # shellcheck disable=SC2086 # words
        works "$marco" synth $shape model.gguf --type $type --overwrite
        works "$marco" run -m model.gguf -p "$prompt" -n 8 --json --ignore-eos
        json 'all(r["stats"]["peak_memory_bytes"] <=
                  (r["stats"]["weight_bytes"] + r["stats"]["kv_bytes"]) +
                  max(0.1 * (r["stats"]["weight_bytes"] + r["stats"]["kv_bytes"]), 64 << 20)
                  for r in rows)'
        json 'rows[0]["stats"]["weight_bytes"] <= __import__("os").path.getsize("model.gguf") * 1.02'
    done
done

# A long prompt is cut into passes whose buffers fit beside the model, whatever the chunk.
python3 -c 'print("word " * 740)' >prompt
works "$marco" synth marco-nano model.gguf --layers 1 --type Q8_0 --overwrite
for options in '' '--chunk 4096' '--compute f32'; do
    # shellcheck disable=SC2086 # words
    works "$marco" run -m model.gguf -f prompt -n 4 --json --ignore-eos $options
    json 'all(r["stats"]["peak_memory_bytes"] <=
              (r["stats"]["weight_bytes"] + r["stats"]["kv_bytes"]) +
              max(0.1 * (r["stats"]["weight_bytes"] + r["stats"]["kv_bytes"]), 64 << 20)
              for r in rows)'
done
finish

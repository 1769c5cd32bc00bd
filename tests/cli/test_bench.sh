#!/bin/sh
# marco bench: the form of its results, which measurements it makes, and what it refuses.
. "$(dirname "$0")/common.sh"

works "$marco" synth tiny-qwen3moe model.gguf --type Q8_0
works "$marco" bench -m model.gguf --prefill 70 --decode 100 --tokens 5 --reps 2 -t 2 --json
json 'len(rows) == 1 and rows[0]["threads"] == 2 and rows[0]["reps"] == 2'
json 'all(rows[0]["roof"][k] > 0 for k in ("memory_gb_s", "int8_gops", "f32_gflops"))'
json '[(r["name"], r.get("tokens"), r.get("context")) for r in rows[0]["results"]] == [
      ("prefill", 70, None), ("decode", None, 100)]'
json 'all(0 < r["tok_s"]["min"] <= r["tok_s"]["median"] <= r["tok_s"]["max"]
          for r in rows[0]["results"])'
json 'all(0 < r["roof_share"] < 1 for r in rows[0]["results"])'
# Decoding reads the weights, and of the cache the context with half of what is decoded after it.
json 'all(r["bytes_per_token"] == rows[0]["bytes_per_token"]
          + (r["context"] + 3) * rows[0]["kv_bytes_per_token"]
          for r in rows[0]["results"] if r["name"] == "decode")'
json 'rows[0]["first_token"]["first_ms"] > 0 and rows[0]["first_token"]["second_ms"] > 0'
json 'rows[0]["load_seconds"] > 0 and rows[0]["peak_memory_bytes"] > rows[0]["weight_bytes"] > 0'
json 'rows[0]["level"] and rows[0]["version"] and rows[0]["types"] == "Q8_0, F32"'

# Naming one kind chooses that kind alone; people's form; the reference path.
works "$marco" bench -m model.gguf --decode 0 --tokens 2 --reps 1 --compute f32 -q
check 'the roof' grep -Eq '^roof +memory [0-9.]+ GB/s' out
check 'the result' grep -Eq '^decode at 0 +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ %$' out
check 'nothing else' test "$(grep -Ec '^(prefill|decode) ' out)" -eq 1

refuses 2 'no model' "$marco" bench --prefill 8
refuses 2 '1 to 2147483647' "$marco" bench -m model.gguf --reps 0
refuses 2 '1 to 100' "$marco" bench -m model.gguf --reps 101
refuses 2 '1 to 2147483647' "$marco" bench -m model.gguf --tokens -5
for list in -3 0 '8,' ',8' '8,,9' 8x 99999999999 ''; do
    refuses 2 'prefill' "$marco" bench -m model.gguf --prefill "$list"
done
refuses 2 'decode' "$marco" bench -m model.gguf --decode -1
refuses 2 'at most 32' "$marco" bench -m model.gguf --decode "$(seq -s, 1 33)"
refuses 1 'context of 1024' "$marco" bench -m model.gguf --prefill 1025
refuses 1 '1020.*64 .*context of 1024' "$marco" bench -m model.gguf --decode 1020
refuses 1 'context of 16' "$marco" bench -m model.gguf --ctx 16 --prefill 17
refuses 1 'none of the measurements' "$marco" bench -m model.gguf --ctx 16 -q
refuses 1 'absent.gguf' "$marco" bench -m absent.gguf
finish

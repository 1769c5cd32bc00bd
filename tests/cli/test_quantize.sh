#!/bin/sh
# marco quantize: sizes, types by tensor, importance, and what it refuses.
. "$(dirname "$0")/common.sh"

works "$marco" synth tiny-qwen3moe f32.gguf --type F32
works "$marco" quantize f32.gguf q8.gguf --type Q8_0 --json
json 'rows[0]["output"] == "q8.gguf" and 8.5 <= rows[0]["bits_per_weight"] < 10'
json 'rows[0]["weight_bytes"] < rows[0]["weight_bytes_before"] / 3 and rows[0]["fallbacks"] == 0'
json 'rows[0]["bytes"] == __import__("os").path.getsize("q8.gguf") and rows[0]["seconds"] >= 0'
works "$marco" convert f32.gguf same.gguf --type Q8_0
check 'the bytes of convert' cmp q8.gguf same.gguf
works "$marco" quantize -m f32.gguf q4.gguf --type q4_k_m
check 'sizes before and after' grep -Eq 'bits a weight\) became .* \(' err
check 'what fell back' grep -Eq '^note: .* blocks' err
works "$marco" quantize f32.gguf again.gguf --type Q4_K_M -t 3 -q
check 'quiet' [ ! -s err ]
check 'the same bytes from any number of threads' cmp q4.gguf again.gguf
works "$marco" run -m q4.gguf -p a -n 2 --raw

types() {
    "$marco" inspect "$1" --json | python3 -c '
import json, sys
for name, kind in sorted((t["name"], t["type"]) for t in json.load(sys.stdin)["tensors"]):
    print(name, kind)' >types
}
works "$marco" quantize f32.gguf mix.gguf --type Q4_0 --tensor 'blk.0.*=Q5_1' \
    --tensor 'blk.0.ffn_down_exps.weight=F16'
types mix.gguf
check 'a pattern' grep -q '^blk.0.attn_q.weight Q5_1' types
check 'the last pattern counts' grep -q '^blk.0.ffn_down_exps.weight F16' types
check 'the rest' grep -q '^blk.1.ffn_down_exps.weight Q4_0' types
check 'routers stay' grep -q '^blk.0.ffn_gate_inp.weight F32' types

# ---- importance: of 64 columns, the first half of one matrix
python3 - <<'END'
import struct
name = b"blk.0.attn_q.weight"
def write(path, name, n):
    with open(path, "wb") as f:
        f.write(struct.pack("<ii", 1, len(name)) + name + struct.pack("<ii", 1, n))
        f.write(struct.pack(f"<{n}f", *[100.0 if i < n / 2 else 1.0 for i in range(n)]))
write("good.dat", name, 64)
write("long.dat", name, 65)
write("other.dat", b"blk.9.attn_q.weight", 64)
END
works "$marco" quantize f32.gguf imp.gguf --type Q4_0 --imatrix good.dat
check 'what is not in the matrix' grep -Eq '^note: .* importance' err
works "$marco" quantize f32.gguf plain.gguf --type Q4_0
check 'importance changes bytes' sh -c '! cmp -s imp.gguf plain.gguf'
refuses 1 'another model' "$marco" quantize f32.gguf x.gguf --type Q4_0 --imatrix long.dat
refuses 1 'blk\.9\.attn_q' "$marco" quantize f32.gguf x.gguf --type Q4_0 --imatrix other.dat
refuses 1 'importance matrix' "$marco" quantize f32.gguf x.gguf --type Q4_0 --imatrix q8.gguf
refuses 1 'nowhere' "$marco" quantize f32.gguf x.gguf --type Q4_0 --imatrix nowhere

# ---- refusals
refuses 2 'type' "$marco" quantize f32.gguf x.gguf
refuses 2 'input and an output' "$marco" quantize f32.gguf --type Q8_0
refuses 1 'Q9.*Q4_K_M' "$marco" quantize f32.gguf x.gguf --type Q9
refuses 1 '\.gguf' "$marco" quantize f32.gguf folder --type Q8_0
refuses 1 'q8\.gguf' "$marco" quantize f32.gguf q8.gguf --type Q8_0
refuses 1 'requantize' "$marco" quantize q4.gguf x.gguf --type Q8_0
works "$marco" quantize q4.gguf x.gguf --type Q8_0 --requantize
works "$marco" quantize q8.gguf x.gguf --type Q4_0 --overwrite
refuses 1 'zzz' "$marco" quantize f32.gguf y.gguf --type Q8_0 --tensor 'zzz=Q8_0'
refuses 1 'norms' "$marco" quantize f32.gguf y.gguf --type Q8_0 --tensor '*_norm.weight=Q8_0'
check 'nothing left behind' [ ! -e y.gguf ]
finish

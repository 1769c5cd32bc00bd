#!/bin/sh
# Where weights live: test_residency.sh PROGRAM BAD_DISK_LIBRARY
. "$(dirname "$0")/common.sh"
bad_disk=$2

works "$marco" synth marco-nano model.gguf --layers 1 --type Q8_0
python3 -c 'print("word " * 60)' >prompt
python3 -c 'print("word " * 600)' >long
ids=$(python3 -c 'print(",".join(str(7 * i % 250) for i in range(40)))')

# ---- the plan ----
works "$marco" run -m model.gguf -p hi -n 2
check 'the plan is printed' grep -Eq '^note: weights: 4[0-9]+ MiB in memory$' err
works "$marco" run -m model.gguf -p hi -n 2 --mmap
check 'a map is told of' grep -q '^note: weights: .* mapped from model.gguf' err
works "$marco" run -m model.gguf -p hi -n 2 --quiet
check 'and nothing when quiet' [ ! -s err ]

# ---- budgets that make no sense, or are too small ----
for size in 0 -1 abc 6X 1.5G 6GG '' 99999999999999999999G 17179869184G; do
    refuses 2 "^marco run: --ram '$size': must be a size" "$marco" run -m model.gguf -p hi --ram "$size"
done
refuses 2 'excludes' "$marco" run -m model.gguf -p hi --ram 1G --mmap
refuses 1 'too little: the smallest that works is --ram [0-9]+M' \
    "$marco" run -m model.gguf -p hi --ram 1
least=$(sed 's/.*works is --ram \([0-9]*\)M.*/\1/' err)
whole=$(sed 's/.*in memory: --ram \([0-9]*\)M.*/\1/' err)
refuses 1 'too little' "$marco" run -m model.gguf -p hi --ram $((least - 8))M

# ---- the smallest that works does, and budgets are kept ----
for budget in "$least" $((least + 20)) $(((least + whole) / 2)) $((whole - 4)) "$whole"; do
    works "$marco" run -m model.gguf -f prompt -n 60 --ignore-eos --json --ram "${budget}M"
    json "all(r['stats']['peak_memory_bytes'] <= 1.05 * ($budget << 20) for r in rows)"
    json "all((r['stats']['expert_misses'] > 0) == ($budget < $whole) for r in rows)"
done
refuses 1 'a context of [0-9]+ tokens does not fit into the [0-9]+ MiB' \
    "$marco" run -m model.gguf -f long -n 1 --ram "${least}M" --json

# A reply that outgrows its budget: what there is of it, and why there is no more.
"$marco" run -m model.gguf -f prompt --temp 0 --logit-bias 65=1000 --ram "${least}M" --json >out 2>err
check 'a reply that breaks off is a failure' [ $? -eq 1 ]
check 'and the reason is named' grep -Eq '^marco run: .* tokens does not fit into the' err
json "len(rows) == 1 and rows[0]['finish'] == 'error' and 'does not fit' in rows[0]['error']"
json "rows[0]['text'] == 'A' * rows[0]['stats']['reply_tokens'] != ''"

# ---- the same bits ----
works "$marco" score -m model.gguf --ids "$ids" --json --top 3
mv out expected
for options in --mmap "--ram ${least}M" "--ram $((least + 30))M --threads 3 --chunk 7" \
    "--ram $((least + 9))M --threads 1 --chunk 1"; do
    # shellcheck disable=SC2086 # words
    works "$marco" score -m model.gguf --ids "$ids" --json --top 3 $options
    check "the same scores with $options" cmp -s out expected
done

# ---- disks ----
# uncached COMMAND...: after dropping the model from the page cache, so that it is read from disk.
uncached() {
    dd if=model.gguf iflag=nocache count=0 2>/dev/null
    "$@"
}
for options in '' "--ram $((least + 4))M"; do # what is preloaded counts too
    # shellcheck disable=SC2086 # words
    works uncached env BAD_DISK_SHORT=1 LD_PRELOAD="$bad_disk" \
        "$marco" score -m model.gguf --ids "$ids" --json --top 3 $options
    check "short reads give the same scores with '$options'" cmp -s out expected
done

# broken_by COMMAND...: scores more tokens than a pipe holds rows of, experts in the file, COMMAND
# after the first rows; leaves the exit status in $status.
many=$(python3 -c 'print(",".join(str(7919 * i % 150000) for i in range(1200)))')
broken_by() {
    mkfifo rows
    BAD_DISK_ERROR=$scratch/broken LD_PRELOAD="$bad_disk" "$marco" score -m model.gguf --json \
        --top 5 --ids "$many" --chunk 1 --ram "$((least + 40))M" -q >rows 2>err &
    pid=$!
    exec 3<rows
    dd bs=1 count=1 <&3 >/dev/null 2>&1
    "$@"
    cat <&3 >/dev/null
    exec 3<&-
    wait $pid
    status=$?
    rm -f rows broken
}
touch broken
refuses 1 'cannot read' env BAD_DISK_ERROR="$scratch/broken" LD_PRELOAD="$bad_disk" \
    "$marco" run -m model.gguf -p hi
rm -f broken
broken_by touch broken
check 'a disk that fails ends the work' [ $status -eq 1 ]
check 'and is named' grep -Eq '^marco score: model.gguf: cannot read [0-9]+ bytes at byte [0-9]+: ' err
broken_by touch model.gguf
check 'a file that changes ends the work' [ $status -eq 1 ]
check 'and is named' grep -q '^marco score: model.gguf: something changed the file' err

# ---- memory that is not there ----
refuses 1 'memory' sh -c "ulimit -v 150000; exec '$marco' run -m model.gguf -p hi"

# ---- traces ----
works "$marco" run -m model.gguf -f prompt -n 80 --ignore-eos --json --ctx 512 \
    --ram $((least + 60))M --trace trace
json "rows[0]['stats']['expert_misses'] > rows[0]['stats']['expert_slots']"
slots=$(sed 's/.*"expert_slots":\([0-9]*\).*/\1/' out)
ran=$(sed 's/.*"expert_hits":\([0-9]*\),"expert_misses":\([0-9]*\).*/\1 \2/' out)
cp trace kept
refuses 1 'trace already exists' "$marco" run -m model.gguf -p hi --trace trace
check 'and is as it was' cmp -s trace kept
refuses 1 'missing' "$marco" run -m missing.gguf -p hi --trace new
refuses 1 'no/folder' "$marco" run -m model.gguf -p hi --trace no/folder/new
refuses 1 'does not fit' "$marco" run -m model.gguf -f long -n 1 --ram "${least}M" --trace new
check 'a run that fails leaves no trace' [ ! -e new ]
works "$marco" trace trace --slots "$slots,1,100000" --json
json "'%d %d' % (rows[0]['hits'], rows[0]['misses']) == '$ran' and rows[0]['policy'] == 'lru'"
json "len(rows) == 9 and len({r['hits'] + r['misses'] for r in rows}) == 1"
json "all(max(r['hits'] for r in rows[i:i + 3]) == rows[i + 2]['hits'] for i in (0, 3, 6))"
json "len({r['hits'] for r in rows[6:]}) == 1"

# Two steps of {1, 2} and {3}, by hand: with two slots, 3 takes the place of 1, then 1 that of 2.
printf '# by hand\n1 0 0 2 1\n2 0 1 3\n3 0 2 1\n4 0 3 3 1\n' >small
works "$marco" trace small --slots 2 --policy opt,lru --json
json "[(r['policy'], r['hits']) for r in rows] == [('lru', 2), ('opt', 3)]"
works "$marco" trace small --slots 1,2
check 'a table' grep -Eq '^lru +2 +2 +4 +33.33%$' out

# Large numbers of layers and experts take no more memory than small ones.
printf '1 0 0 0\n2 4095 0 16383\n3 0 0 0\n' >far
works sh -c "ulimit -v 60000; exec '$marco' trace far --slots 1,2 --json"
json "[r['hits'] for r in rows] == [0, 0, 0, 1, 1, 1]"

refuses 1 'cannot open' "$marco" trace missing --slots 1
refuses 2 'no trace' "$marco" trace --slots 1
refuses 2 'give --slots' "$marco" trace small
refuses 2 "policy 'best'" "$marco" trace small --slots 1 --policy best
for size in 0 -1 x 1,0 '' , 1, ,1 1,,2; do
    refuses 2 'must be up to' "$marco" trace small --slots "$size"
done
for policy in '' , lru, ,lru lr; do
    refuses 2 'must be lru, lfu or opt' "$marco" trace small --slots 1 --policy "$policy"
done
for line in '1 0' '1 0 0' '1 0 0 x' '1 5000 0 1' '1 0 0 20000' '-1 0 0 1' '1 0 0 1 99999999999999999999'; do
    echo "$line" >wrong
    refuses 1 'wrong: line 1 ' "$marco" trace wrong --slots 1
done
echo '# nothing' >wrong
refuses 1 'no choices' "$marco" trace wrong --slots 1
finish

#!/bin/sh
# marco pull, list and rm against a stand-in for the hub, with everything going wrong that can.
here=$(cd "$(dirname "$0")" && pwd)
. "$(dirname "$0")/common.sh"

export HOME="$scratch" HF_HUB_CACHE="$scratch/cache"
unset HF_HOME HF_TOKEN HF_TOKEN_PATH HF_ENDPOINT HF_HUB_OFFLINE http_proxy https_proxy all_proxy \
    no_proxy SSL_CERT_FILE CURL_CA_BUNDLE REQUESTS_CA_BUNDLE
# Of waits between tries, of the times that what has come is recorded, and of patience.
export MARCO_HUB_PACE=0.05
servers=
trap 'kill $servers 2>/dev/null; rm -rf "$scratch"' EXIT

# serve FOLDER [OPTION...]: starts a hub; its address is left in $address.
serve() {
    folder=$1
    shift
    python3 "$here/hub.py" "$folder" --port-file "$folder.address" "$@" &
    servers="$servers $!"
    until [ -s "$folder.address" ]; do
        kill -0 $! || exit 1
        sleep 0.05
    done
    address=$(cat "$folder.address")
}

# faults JSON: what goes wrong from now on; the log begins anew.
faults() {
    printf '%s' "$1" >hub/faults
    rm -f hub/log
}

# served EXPRESSION: the Python expression holds of `rows`, what the hub was asked; `sent(r)` adds up
# the bytes of files.
served() {
    checks=$((checks + 1))
    python3 - "$HF_ENDPOINT" "$1" <<'PYTHON' || fail "served: $1"
import json, sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
opener.open(sys.argv[1] + "/_idle").read()
try:
    rows = [json.loads(line) for line in open("hub/log", encoding="utf-8")]
except FileNotFoundError:
    rows = []
sent = lambda part: sum(r["sent"] for r in rows if part in r["path"] or r["server"] == part)
if not eval(sys.argv[2]):
    print("    ", sent("cdn"), "bytes;", *rows[:12], sep="\n    ")
    sys.exit(1)
PYTHON
}

fresh() {
    rm -rf cache
}

snapshot=cache/models--org--tiny/snapshots
blobs=cache/models--org--tiny/blobs

# The cache holds the hub's files, and nothing half.
check_whole() {
    check 'the files' diff -r "$snapshot"/*/ hub/org/tiny
    check 'nothing half' sh -c "! ls $blobs | grep incomplete"
    check 'the reference' [ -d "$snapshot/$(cat cache/models--org--tiny/refs/main)" ]
}

mkdir -p hub/org/tiny/sub
works "$marco" synth tiny-qwen3moe hub/org/tiny-hf -q
cp hub/org/tiny-hf/* hub/org/tiny/
: >hub/org/tiny/empty.txt
printf 'Größe' >'hub/org/tiny/sub/a b+%.txt'
printf 'Größe' >hub/org/tiny/sub/twin.txt
python3 -c '
import random
random.seed(1)
open("hub/org/tiny/sub/large.bin", "wb").write(random.randbytes(9 << 20 | 12345))'
size=$(wc -c <hub/org/tiny/sub/large.bin)
serve hub
export HF_ENDPOINT="$address"

# ---- what is right --------------------------------------------------------------------------

works "$marco" pull org/tiny
check 'the folder is printed' [ -f "$(cat out)/config.json" ]
check_whole
tiny=$(cat cache/models--org--tiny/refs/main)
served "sent('cdn') > $size"
check 'links are relative' sh -c "readlink $snapshot/*/sub/large.bin | grep -qE '^[.][.]/[.][.]/[.][.]/blobs/[0-9a-f]{64}$'"
faults '{}'
works "$marco" pull org/tiny
served "sent('cdn') == 0 and sent('resolve') == 0 and len(rows) == 2"
works "$marco" list
check 'list' grep -Eq '^org/tiny  +main .* MB .*whole$' out
works "$marco" list --json
json "(len(rows) == 1 and rows[0]['whole'] and rows[0]['revision'] == 'main' and
      rows[0]['files'] == rows[0]['of_files'] and rows[0]['bytes'] > $size and
      len(rows[0]['commit']) == 40 and rows[0]['modified'] > 1600000000)"

# -m finds it, and a path that exists comes first.
works "$marco" inspect -m org/tiny
works "$marco" run -m org/tiny -p Hello -n 1 -q
checks=$((checks + 1))
echo Hello | "$marco" tokenize -m org/tiny >out 2>err || fail 'tokenize'
works "$marco" convert org/tiny tiny.gguf
works "$marco" quantize org/tiny tiny-q8.gguf --type Q8_0
works "$marco" inspect -m org/tiny@main
refuses 1 'marco pull org/other' "$marco" inspect -m org/other
refuses 1 'marco pull org/tiny@v1' "$marco" inspect -m org/tiny@v1
refuses 1 'nowhere.gguf' "$marco" inspect -m org/nowhere.gguf
mkdir -p org/tiny
refuses 1 'org/tiny' "$marco" inspect -m org/tiny
rm -r org

# A GGUF file stands for a snapshot that has no other weights.
mkdir -p hub/org/one hub/org/two
cp tiny.gguf hub/org/one/model.gguf
cp tiny.gguf hub/org/two/a.gguf
cp tiny-q8.gguf hub/org/two/b.gguf
works "$marco" pull org/one
works "$marco" inspect -m org/one
works "$marco" pull org/two --include 'b.*'
works "$marco" inspect -m org/two
works "$marco" list
check 'a part' grep -Eq '^org/two .* 1 of 2 files$' out
works "$marco" pull org/two
refuses 1 '2 GGUF files' "$marco" inspect -m org/two

# ---- revisions, patterns, pages ---------------------------------------------------------------

works "$marco" pull org/one@v1
works "$marco" pull org/one@refs/pr/1
commit=$(cat cache/models--org--one/refs/main)
works "$marco" pull "org/one@$commit"
check 'a commit needs no reference' [ ! -e "cache/models--org--one/refs/$commit" ]
works "$marco" inspect -m org/one@refs/pr/1
fresh
faults '{"page": 2}'
works "$marco" pull org/tiny
check_whole
served "sum('/tree/' in r['path'] for r in rows) >= 3"
fresh
faults '{}'
works "$marco" pull org/tiny --include '*.json' --include 'sub/'
check 'wanted' [ -e "$(cat out)/config.json" ]
check 'wanted' [ -e "$(cat out)/sub/large.bin" ]
check 'not wanted' [ ! -e "$(cat out)/empty.txt" ]
fresh
refuses 1 "files .*matches 'nothing'" "$marco" pull org/tiny --include nothing
refuses 1 "files .*matches 'n[*]ing'" "$marco" pull org/tiny --include '*.json' --include 'n*ing'
refuses 1 'matches .nothing/' "$marco" pull org/tiny --include nothing/ --include '*'
refuses 1 'matches .config\\.json' "$marco" pull org/tiny --include 'config\.json'
check 'nothing is there' [ ! -e cache/models--org--tiny ]
refuses 1 'has nothing of this name' "$marco" pull org/nothing
refuses 1 'not this revision' "$marco" pull org/tiny@v7
for bad in a/b/c ../x x/.. org/ /tiny 'org/ti ny' org/tiny@ org/tiny@../x org/tiny@a..b \
    org/tiny@-x org--tiny/x "org/$(printf 'x\ny')"; do
    refuses 1 'no model|no name of a branch' "$marco" pull "$bad"
done
refuses 2 'needs a model' "$marco" pull
refuses 2 'needs a model' "$marco" rm
refuses 1 "hub's address" "$marco" pull org/tiny --endpoint ftp://x
refuses 1 "hub's address" "$marco" pull org/tiny --endpoint 'http://u:p@x'

# ---- tokens -----------------------------------------------------------------------------------

fresh
faults '{"token": "secret"}'
refuses 1 'HF_TOKEN' "$marco" pull org/tiny
HF_TOKEN=wrong refuses 1 'HF_TOKEN' "$marco" pull org/tiny
HF_TOKEN="$(printf 'a\nb')" refuses 1 'character' "$marco" pull org/tiny
rm -f hub/log
HF_TOKEN=secret works "$marco" pull org/tiny
check_whole
served "all((r['token'] == 'Bearer secret') == (r['server'] == 'hub') for r in rows)"
served "any(r['server'] == 'cdn' for r in rows) and all(r['token'] is None or
    r['server'] == 'hub' for r in rows)"
fresh
mkdir -p .cache/huggingface
echo secret >.cache/huggingface/token
works "$marco" pull org/tiny --include config.json
rm .cache/huggingface/token
echo ' secret ' >token
# shellcheck disable=SC2088 # the program replaces it
HF_TOKEN_PATH='~/token' works "$marco" pull org/tiny --include '*.json'

# ---- faults that pass -------------------------------------------------------------------------

for fault in '{"cut_once": 1500000}' '{"cut": 3000000}' '{"no_ranges": true}' '{"broken": 2}' \
    '{"busy": 1}'; do
    fresh
    faults "$fault"
    works "$marco" pull org/tiny
    check_whole
done
# The server said after how long: at least a second from its answer to the same question again.
served "all(min(r['at'] for r in rows if r['path'] == b['path'] and r['at'] > b['at']) >=
    b['at'] + 1 for b in rows if b['code'] == 429 and b['server'] == 'hub')"
served "{r['server'] for r in rows if r['code'] == 429} == {'hub', 'cdn'}"
# An answer of more than the range that was asked for, and all of the range comes.
fresh
faults '{"promise": 100}'
works "$marco" pull org/tiny --include 'sub/large.bin'
check 'the file' cmp -s "$snapshot"/*/sub/large.bin hub/org/tiny/sub/large.bin
served "sent('cdn') == $size"

# ---- faults that do not -----------------------------------------------------------------------

# breaks FAULTS PATTERN: the pull fails saying so, and leaves nothing that could pass for the model.
breaks() {
    fresh
    faults "$1"
    refuses 1 "$2" "$marco" pull org/tiny
    check "no reference after $1" [ ! -e cache/models--org--tiny/refs/main ]
    refuses 1 'marco pull org/tiny' "$marco" inspect -m org/tiny
}

breaks '{"flip": "sub/large.bin"}' 'sub/large.bin: .*SHA-256'
check 'no damaged blob' sh -c "! find $blobs -size +6000k | grep -q ."
faults '{}'
works "$marco" pull org/tiny
check_whole
breaks '{"flip": "config.json"}' "config.json: .*git's SHA-1"
breaks '{"short": "sub/large.bin"}' 'sub/large.bin: .* bytes of a file that it lists'
breaks '{"longer": "sub/large.bin"}' 'sub/large.bin: .* bytes of a file that it lists'
breaks '{"longer": "config.json"}' 'config.json: .* bytes of a file that it lists'
breaks '{"wrong_range": true}' 'another part'
breaks '{"loop": true}' 'redirects'
breaks '{"downgrade": "file:///etc"}' 'no web address'
breaks '{"downgrade": "ftp://127.0.0.1"}' 'no web address'
breaks '{"size": {"sub/large.bin": 1125899906842624}}' \
    '1[.]1 PB are to be downloaded and .* has room for [0-9.]+ [kMGT]?B; free 1[.]1 PB more'
breaks '{"size": {"sub/large.bin": 1e300}}' 'size'
breaks '{"size": {"sub/large.bin": -1}}' 'size'
breaks '{"next": "http://127.0.0.2/x"}' 'elsewhere'
breaks '{"huge_json": true}' 'answer of more than'
MARCO_HUB_PACE=0.01 breaks '{"drip": true}' 'answers too slowly: given up after 2 seconds'
breaks '{"sha": "main"}' 'no commit in the answer'
other=0123456789012345678901234567890123456789
faults "{\"sha\": \"$other\"}"
refuses 1 "another commit, $other" "$marco" pull "org/tiny@$tiny"
check 'nothing is there' [ ! -e cache/models--org--tiny ]
no_answer="line 1, column|not the answer|no commit|\"sha\" is"
for garbage in '' '[' '{}' '[]' '{"sha": 1}' '{"sha": "../../../x"}' '\u00ff'; do
    breaks "{\"garbage\": \"$(printf '%s' "$garbage" | sed 's/"/\\"/g')\"}" \
        "^marco pull: org/tiny: ($no_answer)"
done
for name in ../x /etc/x a/../../x a//b ./x x/. .. 'a\\b' 'a\u0000b' 'a\nb' 'a\u001b[2J' \
    "$(printf '%0300d' 0)" "$(printf '%050d' 0 | sed 's,0,0/,g')x" ''; do
    breaks "{\"names\": [\"$name\"]}" '^marco pull: org/tiny: a file is called .*could lie outside'
done
breaks '{"names": ["config.json"]}' "'config.json' is listed twice"
check 'nothing outside' [ ! -e cache/x ]
check 'nothing outside' [ ! -e x ]

fresh
faults '{}'
HF_ENDPOINT=http://127.0.0.1:1 refuses 1 'network' "$marco" pull org/tiny
HF_ENDPOINT=http://hub.invalid refuses 1 'network' "$marco" pull org/tiny
HF_HUB_OFFLINE=1 refuses 1 'HF_HUB_OFFLINE' "$marco" pull org/tiny
http_proxy="$HF_ENDPOINT" no_proxy=127.0.0.1 works "$marco" pull org/tiny \
    --endpoint http://hub.invalid
check_whole
fresh
checks=$((checks + 1))
(ulimit -f 8000 && exec "$marco" pull org/tiny) >out 2>err && fail 'a file over the limit'
check 'it says which' grep -q 'cannot write .*incomplete: File too large' err
works "$marco" pull org/tiny
check_whole

# ---- interruptions ----------------------------------------------------------------------------

# Blocks of a MiB that the record of the half download names.
kept() {
    for record in "$blobs"/*.marco-blocks.incomplete; do
        tail -c +129 "$record" 2>/dev/null
    done | tr -cd 1 | wc -c
}

# begin SIGNAL: a pull that is sent the signal in the middle; its exit status is left in $status.
begin() {
    "$marco" pull org/tiny --include 'sub/*' >out 2>err &
    pid=$!
    until [ "$(kept)" -ge 4 ]; do
        kill -0 $pid 2>/dev/null || break
        sleep 0.05
    done
    kill "-$1" $pid
    wait $pid 2>/dev/null
    status=$?
    served True # the log of it is complete
}

for signal in KILL INT; do
    fresh
    faults '{"delay": 0.02}'
    begin $signal
    check "not done when $signal came" [ $status -gt 128 ]
    had=$(kept)
    check "some of it was there: $had" [ "$had" -ge 4 ]
    faults '{}'
    works "$marco" pull org/tiny --include 'sub/*'
    # The last block is a small one.
    served "sent('cdn') - ($size - $had * (1 << 20)) in (0, (1 << 20) - 12345)"
    check 'the file' cmp -s "$snapshot"/*/sub/large.bin hub/org/tiny/sub/large.bin
    check 'nothing half' sh -c "! ls $blobs | grep incomplete"
done
check 'it says so' [ $status -eq 130 ]

# The file changes between two runs; a record that is damaged.
fresh
faults '{"delay": 0.02}'
begin KILL
faults '{}'
printf 'x' >>hub/org/tiny/sub/large.bin
works "$marco" pull org/tiny
check 'the new file' cmp -s "$(cat out)/sub/large.bin" hub/org/tiny/sub/large.bin
size=$(wc -c <hub/org/tiny/sub/large.bin)
fresh
faults '{"delay": 0.02}'
begin KILL
for record in "$blobs"/*.marco-blocks.incomplete; do
    tr '\0' 1 <"$record" >record
    cp record "$record" # all of it is there, it says; but the part is shorter, or has holes
done
faults '{}'
"$marco" pull org/tiny --include 'sub/*' >out 2>err || works "$marco" pull org/tiny --include 'sub/*'
check 'the file' cmp -s "$snapshot"/*/sub/large.bin hub/org/tiny/sub/large.bin

# Two at once: one downloads, the other waits and finds it there.
fresh
faults '{"delay": 0.01}'
"$marco" pull org/tiny >out1 2>err1 &
first=$!
works "$marco" pull org/tiny
check 'the first of two' wait $first
check_whole
served "sent('large.bin') + sent('cdn') <= $size + 3000000"

# ---- rm ---------------------------------------------------------------------------------------

# Another revision shares all but one file.
old=$(cat cache/models--org--tiny/refs/main)
mkdir outside
echo precious >outside/file
faults '{}'
echo new >hub/org/tiny/empty.txt
works "$marco" pull org/tiny
works "$marco" list --json
json 'len(rows) == 2 and all(r["whole"] for r in rows)'
works "$marco" rm "org/tiny@$old" --yes
check 'it says what was freed' grep -q ' freed$' out
check 'removed' [ ! -e "$snapshot/$old" ]
check_whole
ln -s "$scratch/outside" "$snapshot/$(cat cache/models--org--tiny/refs/main)/link"
works "$marco" rm org/tiny </dev/null
check 'what was freed' grep -Eq '[0-9.]+ MB freed' out
check 'removed' [ ! -e cache/models--org--tiny ]
check 'links are not followed' [ -e outside/file ]
refuses 1 'marco list' "$marco" rm org/tiny --yes
refuses 1 'no model' "$marco" rm ../outside --yes
ln -s "$scratch/outside" cache/models--org--linked
refuses 1 'link' "$marco" rm org/linked --yes
check 'links are not followed' [ -e outside/file ]
fresh
works "$marco" list
check 'none' [ ! -s out ]

# ---- TLS --------------------------------------------------------------------------------------

if command -v openssl >/dev/null; then
    openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 30 \
        -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 2>/dev/null
    plain=$HF_ENDPOINT
    serve hub --tls cert.pem key.pem
    until [ "$(cat hub.address)" != "$plain" ]; do
        sleep 0.05
    done
    HF_ENDPOINT=$(cat hub.address)
    refuses 1 'certificate' "$marco" pull org/tiny
    export SSL_CERT_FILE="$scratch/cert.pem"
    works "$marco" pull org/tiny
    check_whole
    breaks "{\"downgrade\": \"$plain\"}" 'from https to http'
else
    echo 'without openssl, TLS is not tested'
fi
finish

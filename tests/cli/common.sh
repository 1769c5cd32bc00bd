# Shared by the tests of the command line. Usage of each: test_X.sh PROGRAM
# shellcheck shell=sh disable=SC2034 # the variables are for those who read this
set -u
marco=$1
scratch=$(mktemp -d "${TMPDIR:-/tmp}/marco-test.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
cd "$scratch" || exit 1
failures=0
checks=0

fail() {
    failures=$((failures + 1))
    printf 'FAILED: %s\n' "$*"
    [ ! -s err ] || sed 's/^/    stderr: /' err | head -n 5
}

# check WHAT COMMAND...: the command succeeds.
check() {
    what=$1
    shift
    checks=$((checks + 1))
    "$@" || fail "$what"
}

# works COMMAND...: exits 0; its output is left in out and err.
works() {
    checks=$((checks + 1))
    "$@" >out 2>err || fail "exit status $?: $*"
}

# refuses STATUS PATTERN COMMAND...: exits with this status and one line on stderr that matches;
# nothing on stdout.
refuses() {
    wanted=$1 pattern=$2
    shift 2
    checks=$((checks + 1))
    "$@" >out 2>err
    status=$?
    grep -v '^note: ' err >line
    if [ $status -ne "$wanted" ]; then
        fail "exit status $status and not $wanted: $*"
    elif [ "$(wc -l <line)" -ne 1 ]; then
        fail "not one line on stderr: $*"
    elif ! grep -Eq -- "$pattern" line; then
        fail "no '$pattern' on stderr: $*"
    elif [ -s out ]; then
        fail "something on stdout: $*"
    fi
}

# json EXPRESSION: every line of out is JSON, and the Python expression holds of the list `rows`.
json() {
    checks=$((checks + 1))
    python3 - "$1" <<'PYTHON' || fail "JSON: $1"
import json, math, sys
with open("out", encoding="utf-8") as file:
    rows = [json.loads(line) for line in file.read().split("\n") if line]
if not eval(sys.argv[1]):
    print("    rows:", str(rows)[:600])
    sys.exit(1)
PYTHON
}

finish() {
    echo "$checks checks, $failures failed"
    [ "$checks" -gt 0 ] && [ "$failures" -eq 0 ]
    exit
}

# sentences N: lines of twelve words that follow no rule a small model could learn at once.
sentences() {
    awk -v lines="$1" 'BEGIN {
        n = split("the a red blue old small cat dog bird house river sees finds likes leaves and", w,
                  " ")
        for (i = 1; i <= lines; i++) {
            line = ""
            for (j = 0; j < 12; j++) {
                x = (x * 75 + 74) % 65537
                line = line w[x % n + 1] " "
            }
            print line i % 97
        }
    }'
}

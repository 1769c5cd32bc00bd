#!/bin/sh
# test_mpi.sh MPIRUN CHECK_MPI: collectives and the optimiser over four processes, in every layout;
# and that what goes wrong in one process ends them all.
set -eu
if [ $# -ne 2 ]; then
    echo "skipped: built without MPI"
    exit 77
fi
mpirun=$1 check=$2
here=$(dirname "$0")
# shellcheck source=mpirun.sh
. "$here/mpirun.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# expect STATUS PATTERN COMMAND...: exits so ("bad": with any error), and prints a line so.
expect() {
    wanted=$1 pattern=$2
    shift 2
    status=0
    "$@" >"$work/out" 2>&1 || status=$?
    case $wanted:$status in
    "bad:0" | "bad:124") ok=false ;;
    "bad:"*) ok=true ;;
    *) [ "$wanted" = "$status" ] && ok=true || ok=false ;;
    esac
    if ! $ok || ! grep -q -- "$pattern" "$work/out"; then
        echo "FAILED: $* (status $status, not $wanted; or no line with '$pattern'):"
        cat "$work/out"
        failed=1
    else
        echo "passed: $*"
    fi
}

for experts in 1 2 4; do
    expect 0 'process 3 is done' run 4 "$check" all "$experts"
done
expect 0 'process 2 is done' run 3 "$check" all 1
expect 0 'process 0 is done' run 1 "$check" all 1
expect 0 'process 3 is done' run 4 "$check" disagreement 1
expect 0 'process 3 is done' run 4 "$check" failure 2
expect 3 'ARGUMENT.*cannot be spread over 3 of 4' run 4 "$check" none 3
expect 3 'process 3 of 4 has another number of processes to spread' run 4 "$check" mixed 1
expect bad 'signal 9' run 4 "$check" killed 1
expect 3 'Exit code: *3' run 4 "$check" left 1
# Processes of an mpirun that is not this MPI's do not find each other.
expect 3 'UNSUPPORTED.*mpirun started 4 processes, but MPI knows of 1' \
    env PMI_SIZE=4 PMI_RANK=0 timeout 60 "$check" none 1
exit $failed

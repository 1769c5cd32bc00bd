#!/bin/sh
# Ctrl-C, once and again and again, and the terminal going away, while writing and while generating:
# exit status 130, nothing half-made left.
. "$(dirname "$0")/common.sh"

# interrupt file|storm|hangup|output COMMAND...: interrupts it once it has begun to write files under
# room, or its reply, and leaves its exit status in $status. storm: with Ctrl-C again and again until
# it ends; hangup: with SIGHUP. Python, since shells start background children with the signal
# ignored.
interrupt() {
    python3 - "$@" <<'PYTHON'
import os, signal, subprocess, sys, time
what, command = sys.argv[1], sys.argv[2:]
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=open("err", "wb"))
deadline = time.monotonic() + 120

def size(path):
    try:
        return os.path.getsize(path)
    except FileNotFoundError:  # it has got another name since it was listed
        return 0

if what == "output":  # the first piece of a reply
    process.stdout.read(1)
else:  # a file being written
    while not any(size(os.path.join(folder, name)) > 100000
                  for folder, _, names in os.walk("room") for name in names):
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(99)
        time.sleep(0.001)
process.send_signal(signal.SIGHUP if what == "hangup" else signal.SIGINT)
while what == "storm" and process.poll() is None and time.monotonic() < deadline:
    process.send_signal(signal.SIGINT)
try:
    process.communicate(timeout=60)
except subprocess.TimeoutExpired:
    process.kill()
sys.exit(process.wait() % 256)
PYTHON
    status=$?
}

mkdir room
for out in room/out.gguf room/out; do
    interrupt file "$marco" synth qwen3-0.6b $out --layers 4 --type F32
    check "synth $out: exit status $status" [ $status -eq 130 ]
    check "synth $out: one line" sh -c '[ "$(cat err)" = "marco synth: interrupted" ]'
    check "synth $out: nothing is left" [ -z "$(ls -A room)" ]
done
for how in storm hangup; do
    interrupt $how "$marco" synth qwen3-0.6b room/out.gguf --layers 4 --type F32
    check "synth, $how: exit status $status" [ $status -eq 130 ]
    check "synth, $how: one line" sh -c '[ "$(cat err)" = "marco synth: interrupted" ]'
    check "synth, $how: nothing is left" [ -z "$(ls -A room)" ]
done
works "$marco" synth qwen3-0.6b model.gguf --layers 2 --type F32
for how in storm hangup; do
    interrupt $how "$marco" convert model.gguf room/out --type F16
    check "convert, $how: exit status $status" [ $status -eq 130 ]
    check "convert, $how: nothing is left" [ -z "$(ls -A room)" ]
done
for out in room/out.gguf room/out; do
    interrupt file "$marco" convert model.gguf $out --type F16
    check "convert $out: exit status $status" [ $status -eq 130 ]
    check "convert $out: nothing is left" [ -z "$(ls -A room)" ]
done
interrupt file "$marco" upcycle --from model.gguf --to room/out.gguf --experts 8 --expert-dim 768 \
    --top-k 2
check "upcycle: exit status $status" [ $status -eq 130 ]
check "upcycle: nothing is left" [ -z "$(ls -A room)" ]

python3 -c 'print("many words " * 20000)' >text
interrupt storm "$marco" perplexity -m model.gguf -f text --save-kl-base room/out.kl --ctx 64
check "perplexity: exit status $status" [ $status -eq 130 ]
check "perplexity: nothing is left" [ -z "$(ls -A room)" ]

works "$marco" synth tiny-qwen3moe tiny
sed -i 's/"max_position_embeddings": *[0-9]*/"max_position_embeddings": 100000000/' tiny/config.json
interrupt output "$marco" run -m tiny -p a --ignore-eos
check "run: exit status $status" [ $status -eq 130 ]
check "run: its statistics" grep -q '^decode' err
finish

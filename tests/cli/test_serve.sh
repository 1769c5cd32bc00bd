#!/bin/sh
# marco serve: options that make no sense, --check, and (serve.py) what clients meet.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"

works "$marco" synth tiny-qwen3moe model.gguf --type Q8_0

refuses 2 'give -m MODEL' "$marco" serve
refuses 2 "port '70000'" "$marco" serve -m model.gguf --port 70000
refuses 2 'from 0 to 65535' "$marco" serve -m model.gguf --port=-1
refuses 2 "model '=x'" "$marco" serve -m =x
refuses 2 "ram 'much'" "$marco" serve -m model.gguf --ram much
refuses 2 'excludes' "$marco" serve -m model.gguf --ram 1G --mmap
refuses 2 'exclude each other' "$marco" serve -m model.gguf --log x --no-log

# What --check finds.
works "$marco" serve --check -m model.gguf -m other=model.gguf --port 0
check 'the default model' grep -q '^model: .*(the default)' out
check 'the other model' grep -q '^model: other:' out
check 'the address' grep -q '^address: 127\.0\.0\.1 port .*this machine only' out
check 'no keys' grep -q '^keys: none' out
refuses 1 'nowhere\.gguf' "$marco" serve --check -m nowhere.gguf --port 0
refuses 1 "called 'a' already" "$marco" serve --check -m a=model.gguf -m a=model.gguf --port 0
refuses 1 'api-key-file' "$marco" serve --check -m model.gguf --port 0 --host 0.0.0.0
refuses 1 'api-key-file' "$marco" serve --check -m model.gguf --port 0 --host 127.evil.invalid
refuses 1 "host ''" "$marco" serve --check -m model.gguf --port 0 --host ''
works "$marco" serve --check -m model.gguf --port 0 --host 127.0.0.2
refuses 1 'ulimit' sh -c 'ulimit -n 64; exec "$@"' sh "$marco" serve -m model.gguf --port 0
works sh -c 'ulimit -n 100; exec "$@"' sh "$marco" serve --check -m model.gguf --port 0
check 'fewer connections' grep -q '36 connections are taken, not 1024' err
works "$marco" serve --check -m model.gguf --port 0 --host 0.0.0.0 --open
refuses 1 'nokeys' "$marco" serve --check -m model.gguf --port 0 --api-key-file nokeys
printf '# nothing\n\n' >empty
refuses 1 'no key in it' "$marco" serve --check -m model.gguf --port 0 --api-key-file empty
printf 'one first\none second\n' >twice
refuses 1 'twice' "$marco" serve --check -m model.gguf --port 0 --api-key-file twice
printf 'k\303\251y\n' >foreign
refuses 1 'line 1: a key' "$marco" serve --check -m model.gguf --port 0 --api-key-file foreign
printf '# ours\nsecret-1 Alice Smith\r\n  secret-2\n' >keys
chmod 644 keys
works "$marco" serve --check -m model.gguf --port 0 --api-key-file keys
check 'two keys' grep -q '^keys: 2,' out
check 'a warning that others may read them' grep -q '^note: keys may be read by others' err
chmod 600 keys
works "$marco" serve --check -m model.gguf --port 0 --api-key-file keys
check 'no warning' [ ! -s err ]
refuses 1 'both a certificate and its key' "$marco" serve --check -m model.gguf --port 0 --tls-cert keys
refuses 1 'TLS certificate' "$marco" serve --check -m model.gguf --port 0 --tls-cert keys --tls-key keys
refuses 1 'no origin' "$marco" serve --check -m model.gguf --port 0 --cors example.org
refuses 1 'no folder' "$marco" serve --check -m model.gguf --port 0 --session-dir nowhere
refuses 1 '512 MiB|[0-9]+ [KM]i?B|memory|ram' "$marco" serve --check -m model.gguf --port 0 --ram 1K

works python3 -B "$here/serve.py" "$marco"
cat out
finish

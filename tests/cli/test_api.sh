#!/bin/sh
# marco serve: the API as programs meet it (api.py).
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"

works "$marco" synth tiny-qwen3moe model
works python3 -B "$here/api.py" "$marco" "$here/../vectors/chats/qwen3-instruct-2507.jinja"
cat out
finish

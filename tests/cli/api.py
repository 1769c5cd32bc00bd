"""The API of marco serve, by Python's own HTTP client. Run by test_api.sh in a scratch folder with
model/. Usage: api.py PROGRAM TEMPLATE"""
import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [TESTS, os.path.join(TESTS, "interop")]
import launch  # noqa: E402
from checks import check, finish  # noqa: E402
import page_mock  # noqa: E402

program, template = sys.argv[1:]


def edit(path, **changes):
    with open(path, encoding="utf-8") as file:
        value = json.load(file)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**value, **changes}, file)


with open(template, encoding="utf-8") as file:
    edit("model/tokenizer_config.json", chat_template=file.read())
edit("model/config.json", max_position_embeddings=4096)

launched = launch.Server(program, "-m", "m=model", "--no-log")
server, port = launched.process, launched.port


def ask(method, path, body=None, raw=None):
    """Status and answer: JSON where it is that, else text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    data = raw if raw is not None else None if body is None else json.dumps(body)
    connection.request(method, path, data, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode("utf-8")
    connection.close()
    try:
        return answer.status, json.loads(text)
    except ValueError:
        return answer.status, text


def events(text):
    return [json.loads(line[6:]) for line in text.split("\n")
            if line.startswith("data: ") and line != "data: [DONE]"]


def metric(name):
    _, text = ask("GET", "/metrics")
    return sum(float(line.split()[-1]) for line in text.split("\n")
               if line.startswith(name) and not line.startswith("#"))


HELLO = [{"role": "user", "content": "Hello"}]
PING = {"type": "function", "function": {"name": "ping", "parameters": {
    "type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
    "additionalProperties": False}}}
CHAT = {"messages": HELLO, "max_tokens": 8, "ignore_eos": True, "seed": 1, "temperature": 1}

# ---- models and tokens ---------------------------------------------------------------------------

status, answer = ask("GET", "/v1/models")
check("the models", status == 200 and [m["id"] for m in answer["data"]] == ["m"], answer)
pretended = page_mock.model("m", 4096)
check("a model as the page's tests pretend it", [
    {**model, "created": 0, "created_at": pretended["created_at"]} for model in answer["data"]
] == [pretended], (answer, pretended))
check("one", ask("GET", "/v1/models/m")[1].get("id") == "m")
check("none of that name", ask("GET", "/v1/models/../m")[0] == 404)
status, answer = ask("POST", "/tokenize", {"prompt": "h\u00e9<|im_end|>", "return_token_strs": True})
check("tokens", answer["count"] == 4 and answer["token_strs"] ==
      ["h", "bytes:\\xc3", "bytes:\\xa9", "<|im_end|>"], answer)
check("and back", ask("POST", "/detokenize", {"tokens": answer["tokens"]})[1] ==
      {"prompt": "h\u00e9<|im_end|>"})
check("eos", ask("GET", "/tokenizer_info")[1]["eos_token"] == "<|im_end|>")

# ---- chats ---------------------------------------------------------------------------------------

status, whole = ask("POST", "/v1/chat/completions", CHAT)
check("a chat", status == 200 and whole["usage"]["completion_tokens"] == 8 and
      whole["choices"][0]["finish_reason"] == "length", whole)
content = whole["choices"][0]["message"]["content"]
_, text = ask("POST", "/v1/chat/completions",
              {**CHAT, "stream": True, "stream_options": {"include_usage": True}})
chunks = events(text)
check("its stream", "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks[:-1])
      == content and text.endswith("data: [DONE]\n\n"), text)
check("its usage", chunks[-1]["usage"]["completion_tokens"] == 8, chunks[-1])
_, two = ask("POST", "/v1/chat/completions", {**CHAT, "n": 2, "logprobs": True, "top_logprobs": 2})
check("reply 0 of two is the one alone", two["choices"][0]["message"]["content"] == content, two)
scores = two["choices"][0]["logprobs"]["content"]
check("a score for each token", len(scores) == 8 and
      all(len(s["top_logprobs"]) == 2 and s["logprob"] < 0 for s in scores), scores)

# ---- tools and schemas ---------------------------------------------------------------------------

forced = {**CHAT, "tools": [PING], "tool_choice": "required", "parallel_tool_calls": False,
          "max_tokens": 300, "ignore_eos": False}
status, answer = ask("POST", "/v1/chat/completions", forced)
choice = answer["choices"][0] if status == 200 else {}
calls = choice.get("message", {}).get("tool_calls", [])
check("a call that was asked for", len(calls) == 1 and choice["finish_reason"] == "tool_calls" and
      json.loads(calls[0]["function"]["arguments"])["ok"] in (True, False), answer)
_, text = ask("POST", "/v1/chat/completions", {**forced, "stream": True})
deltas = [d for c in events(text) for d in c["choices"][0]["delta"].get("tool_calls", [])]
check("the same in a stream", [d["function"] for d in deltas] == [c["function"] for c in calls], text)
status, answer = ask("POST", "/v1/chat/completions", {
    **CHAT, "max_tokens": 100, "ignore_eos": False, "response_format": {
        "type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["a", 7]}}}})
check("a schema", status == 200 and json.loads(answer["choices"][0]["message"]["content"])
      in ("a", 7), answer)

# ---- completions ---------------------------------------------------------------------------------

status, answer = ask("POST", "/v1/completions", {
    "prompt": [[72, 101], [72, 101, 108]], "max_tokens": 1, "temperature": 0, "echo": True,
    "logprobs": 1})
check("scores of prompts", status == 200 and [c["index"] for c in answer["choices"]] == [0, 1],
      answer)
for choice in answer["choices"]:
    scores = choice["logprobs"]
    n = 3 + choice["index"]
    check("one for each token", all(len(v) == n for v in scores.values()), scores)
    check("none for the first", scores["token_logprobs"][0] is scores["top_logprobs"][0] is None)
    for token, score, top in list(zip(scores["tokens"], scores["token_logprobs"],
                                      scores["top_logprobs"]))[1:]:
        check("the token is among the likeliest", top[token] == score <= max(top.values()), top)
first, second = (c["logprobs"]["token_logprobs"] for c in answer["choices"])
check("the same beginning, the same scores", first[1] == second[1])

# A character that is begun and not ended counts as one.
status, answer = ask("POST", "/v1/completions", {
    "prompt": [226, 97, 98], "echo": True, "logprobs": 1, "max_tokens": 0})
check("offsets after a broken character", answer["choices"][0]["logprobs"]["text_offset"]
      == [0, 1, 2], answer)
status, answer = ask("POST", "/v1/completions", {
    "prompt": [226, 130, 172, 98], "echo": True, "logprobs": 1, "max_tokens": 0})
check("offsets within a whole one", answer["choices"][0]["text"] == "\u20acb" and
      answer["choices"][0]["logprobs"]["text_offset"] == [0, 0, 0, 1], answer)

# ---- Anthropic's form ----------------------------------------------------------------------------

body = {"messages": HELLO, "max_tokens": 5, "temperature": 0}
status, whole = ask("POST", "/v1/messages", body)
check("a message", status == 200 and whole["stop_reason"] in ("max_tokens", "end_turn"), whole)
_, text = ask("POST", "/v1/messages", {**body, "stream": True})
kinds = re.findall(r"^event: (\w+)$", text, re.M)
check("its events", kinds[0] == "message_start" and kinds[-1] == "message_stop", kinds)
check("its text", "".join(e["delta"].get("text", "") for e in events(text)
                          if e["type"] == "content_block_delta") == whole["content"][0]["text"])
status, answer = ask("POST", "/v1/messages/count_tokens", {"messages": HELLO})
usage = whole["usage"]
check("its tokens counted", answer["input_tokens"] ==
      usage["input_tokens"] + usage["cache_read_input_tokens"], answer)

# ---- refusals ------------------------------------------------------------------------------------

for path, body, param in (
    ("/v1/chat/completions", {**CHAT, "max_token": 1}, "max_token"),
    ("/v1/chat/completions", {**CHAT, "n": 0}, "n"),
    ("/v1/chat/completions", {**CHAT, "stop": ["x"] * 5000}, "stop"),
    ("/v1/chat/completions", {**CHAT, "stop": "x", "response_format": {"type": "json_object"}},
     "stop"),
    ("/v1/chat/completions", {**CHAT, "stop": "x", "tools": [PING], "tool_choice": "required"},
     "stop"),
    ("/v1/chat/completions", {**CHAT, "tools": [PING] * 129}, "tools"),
    ("/v1/chat/completions", {**CHAT, "logit_bias": {"512": 1}}, "logit_bias"),
    ("/v1/chat/completions", {**CHAT, "max_tokens": 5000}, "messages"),
    ("/v1/chat/completions", {**CHAT, "response_format": {
        "type": "json_schema", "json_schema": {"name": "x", "schema": {"if": {}}}}},
     "response_format"),
    ("/v1/completions", {"prompt": [512]}, "prompt"),
    ("/v1/completions", {"prompt": "a" * 5000}, "prompt"),
    ("/v1/completions", {"prompt": "a", "suffix": "b"}, "suffix"),
    ("/detokenize", {"tokens": [-1]}, "tokens"),
    ("/tokenize", {}, "prompt"),
):
    status, answer = ask("POST", path, body)
    check(f"{path}: {param} is named", status == 400 and answer["error"]["param"] == param, answer)
for raw in ("", "{", "[]", "[" * 100000, '{"a":1,"a":2}', b'{"model": "\xff"}'):
    check("no JSON object", ask("POST", "/v1/chat/completions", raw=raw)[0] == 400, raw[:20])
check("no such model", ask("POST", "/v1/chat/completions", {**CHAT, "model": "../m"})[1]["error"]
      ["code"] == "model_not_found")
status, answer = ask("POST", "/v1/messages", {"messages": HELLO})
check("Anthropic's errors", status == 400 and answer["type"] == "error" and
      answer["error"]["type"] == "invalid_request_error", answer)

big = json.dumps({"prompt": "7 " * 200000, "add_special_tokens": False})
check("a long text, in a thread of its own", ask("POST", "/tokenize", raw=big)[1].get("count")
      == 400000)
check("a prompt that is far too long", ask("POST", "/v1/completions", {"prompt": "7 " * 200000})[1]
      ["error"]["code"] == "context_length_exceeded")
check("a long body that is wrong", ask("POST", "/v1/completions", {"prompt": "7" * 99999, "x": 1})
      [1]["error"]["param"] == "x")

# ---- clients that leave --------------------------------------------------------------------------


# Scores that would come to hundreds of megabytes.
status, answer = ask("POST", "/v1/completions", {
    "prompt": [[97] * 4000, [98] * 4000], "n": 16, "max_tokens": 0, "echo": True, "logprobs": 20})
check("too many scores", status == 400 and "send fewer prompts" in answer["error"]["message"], answer)


def leave(stream):
    """Asks for more than anybody would wait for, and hangs up."""
    body = json.dumps({**CHAT, "max_tokens": 3500, "n": 2, "stream": stream}).encode()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                           b"Content-Type: application/json\r\nContent-Length: "
                           + str(len(body)).encode() + b"\r\n\r\n" + body)
        if stream:
            connection.recv(1000)
        else:  # broken: who merely sends no more has a second for the answer
            time.sleep(0.05)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


before = metric("marco_reply_tokens_total")
leavers = [threading.Thread(target=leave, args=(i % 2 == 0,)) for i in range(6)]
for thread in leavers:
    thread.start()
for thread in leavers:
    thread.join()
deadline = time.monotonic() + 30
while metric("marco_active_requests") and time.monotonic() < deadline:
    time.sleep(0.05)
check("nothing is under way for them", metric("marco_active_requests") == 0)
made = metric("marco_reply_tokens_total") - before
check("nothing is computed for them", made < 6 * 2 * 3500 / 2, made)
_, again = ask("POST", "/v1/chat/completions", CHAT)
check("others are served as before", again["choices"][0]["message"]["content"] == content, again)

server.send_signal(signal.SIGTERM)
check("the server ends", server.wait(60) == 0)
finish()

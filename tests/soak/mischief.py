"""Requests that a server must refuse, or hang up on, without harm to itself or others."""
from wire import request

# What a refusal may be.
REFUSED = (400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 417, 431)

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "hello"}]


def deep(n):
    return b'{"prompt": ' + b"[" * n + b"]" * n + b"}"


def nested_schema(n):
    schema = {"type": "string"}
    for _ in range(n):
        schema = {"type": "array", "items": schema}
    return {"messages": HELLO, "response_format": {
        "type": "json_schema", "json_schema": {"name": "deep", "schema": schema}}}


# Well-formed HTTP with a body or a path that must be refused with a proper status.
BODIES = {
    "no JSON": (TEXT, b"hello"),
    "an empty body": (TEXT, b""),
    "cut JSON": (TEXT, b'{"prompt": "hel'),
    "bytes that are no UTF-8": (TEXT, b'{"prompt": "\xff\xfe\xc0\x80"}'),
    "half a surrogate": (TEXT, b'{"prompt": "\\ud800"}'),
    "deeply nested JSON": (TEXT, deep(100000)),
    "a list": (TEXT, b"[]"),
    "a key twice": (TEXT, b'{"prompt": "a", "prompt": "b"}'),
    "a misspelt parameter": (TEXT, {"prompt": "a", "max_token": 4}),
    "no prompt": (TEXT, {"max_tokens": 4}),
    "a prompt that is a number": (TEXT, {"prompt": 7}),
    "token ids out of range": (TEXT, {"prompt": [1, 2, 1 << 30]}),
    "negative token ids": (TEXT, {"prompt": [-5]}),
    "a huge integer": (TEXT, b'{"prompt": "a", "max_tokens": 123456789012345678901234567890}'),
    "negative max_tokens": (TEXT, {"prompt": "a", "max_tokens": -1}),
    "n of a billion": (TEXT, {"prompt": "a", "n": 10 ** 9}),
    "temperature of a text": (TEXT, {"prompt": "a", "temperature": "hot"}),
    "thousands of stops": (TEXT, {"prompt": "a", "stop": [str(i) for i in range(5000)]}),
    "an endless prompt": (TEXT, {"prompt": "a " * 100000}),
    "an unknown model": (TEXT, {"prompt": "a", "model": "../../etc/passwd"}),
    "no messages": (CHAT, {"messages": []}),
    "an unknown role": (CHAT, {"messages": [{"role": "pirate", "content": "a"}]}),
    "thousands of tools": (CHAT, {"messages": HELLO, "tools": [
        {"type": "function", "function": {"name": f"f{i}"}} for i in range(5000)]}),
    "a schema of an unknown type": (CHAT, {"messages": HELLO, "response_format": {
        "type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "pirate"}}}}),
    "a deeply nested schema": (CHAT, nested_schema(400)),
    "messages without max_tokens": ("/v1/messages", {"messages": HELLO}),
    "an unknown path": ("/v1/nothing", {}),
    "a path upwards": ("/../../etc/passwd", {}),
}

# No HTTP, or such that a server may hang up.
BYTES = {
    "noise": b"\x00\xff\x16\x03\x01" * 50,
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    "no version": b"GET /\r\n\r\n",
    "a header without an end": b"GET /health HTTP/1.1\r\nX: " + b"a" * 100000,
    "thousands of headers": b"GET /v1/nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n" +
                            b"".join(b"X-%d: y\r\n" % i for i in range(5000)) + b"\r\n",
    "a negative length": b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                         b"Content-Length: -5\r\n\r\n",
    "a length of exabytes": b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                            b"Content-Length: 99999999999999999999999\r\n\r\n",
    "a bad chunk": b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                   b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
}


def one(random, key):
    """A name, the bytes to send, and the statuses that are right; None: hanging up is right too."""
    choice = random.randrange(len(BODIES) + len(BYTES) + 1)
    if choice < len(BODIES):
        name = list(BODIES)[choice]
        path, body = BODIES[name]
        return name, request("POST", path, body, key), REFUSED
    if choice < len(BODIES) + len(BYTES):
        name = list(BYTES)[choice - len(BODIES)]
        return name, BYTES[name], None
    # Refused by its length: a server need not wait for what it will not read.
    return "a body over the limit", request("POST", TEXT, b"", key).replace(
        b"Content-Length: 0", b"Content-Length: 1000000000"), REFUSED

"""A server of marco's, and a client that costs it little: one process, plain sockets, the time of
every event taken when it is received and all parsing left for later."""
import json
import os
import selectors
import socket
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests"))
import launch  # noqa: E402

PATIENCE = 900  # seconds without a byte from anywhere


class Server:
    """`marco serve` of one model on a free port of the loopback, as a context."""

    def __init__(self, program, model, *options):
        self.arguments = [program, "-m", model, *options]

    def __enter__(self):
        server = launch.Server(*self.arguments)
        self.process, self.port = server.process, server.port
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(120)

    def metric(self, name):
        """The sum of a metric over all models."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines
                   if line.split("{", 1)[0].split(" ", 1)[0] == name)


class Reply:
    """A streamed reply: events as (time received, bytes)."""

    def __init__(self, port, path, body):
        data = json.dumps(dict(body, stream=True, stream_options={"include_usage": True})).encode()
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.raw, self.text, self.events = bytearray(), bytearray(), []
        self.head = self.first = None
        self.left = None  # bytes of the chunk that is being received
        self.done = False
        self.sent = time.monotonic()
        self.socket.sendall(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                            "Content-Type: application/json\r\nConnection: close\r\n"
                            f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        self.socket.setblocking(False)

    def receive(self):
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return
        now = time.monotonic()
        self.raw += data
        if self.head is None:
            end = self.raw.find(b"\r\n\r\n")
            if end < 0 and data:
                return
            self.head = bytes(self.raw[:end]).lower()
            del self.raw[:end + 4]
        if self.head.split()[1:2] == [b"200"]:
            self.unchunk()
            self.split(now)
        if not data:
            self.done = True
            if not self.events:
                raise SystemExit(f"no reply: {self.head.decode()}\n{self.raw.decode()}")

    def unchunk(self):
        if b"transfer-encoding: chunked" not in self.head:
            self.text += self.raw
            self.raw.clear()
            return
        while self.raw:
            if self.left is None:
                end = self.raw.find(b"\r\n")
                if end < 0:
                    return
                self.left = int(self.raw[:end].split(b";")[0], 16)
                del self.raw[:end + 2]
            part = self.raw[:self.left]
            self.text += part
            self.left -= len(part)
            del self.raw[:len(part)]
            if self.left == 0:
                if len(self.raw) < 2:
                    return
                del self.raw[:2]  # the chunk's line end
                self.left = None

    def split(self, now):
        while True:
            end = self.text.find(b"\n\n")
            if end < 0:
                return
            event = bytes(self.text[:end])
            del self.text[:end + 2]
            if event == b"data: [DONE]":
                self.done = True
            elif event.startswith(b"data: "):
                self.events.append((now, event[6:]))
                if self.first is None and is_token(json.loads(event[6:])):
                    self.first = now

    def close(self):
        self.socket.close()

    # ---- afterwards ----

    def parsed(self):
        return [(at, json.loads(event)) for at, event in self.events]

    def token_times(self):
        return [at for at, event in self.parsed() if is_token(event)]

    def usage(self):
        """(prompt, cached, reply) tokens."""
        found = [event["usage"] for _, event in self.parsed() if event.get("usage")]
        if not found:
            raise SystemExit("the server told no usage")
        details = found[-1].get("prompt_tokens_details") or {}
        return (found[-1]["prompt_tokens"], details.get("cached_tokens", 0),
                found[-1]["completion_tokens"])

    def content(self):
        return "".join((choice.get("delta") or {}).get("content") or choice.get("text") or ""
                       for _, event in self.parsed() for choice in event.get("choices", []))

    def decode_rate(self):
        """Tokens a second from the first one on."""
        last = max(at for at, event in self.parsed() if event.get("choices"))
        return (self.usage()[2] - 1) / (last - self.first)


def is_token(event):
    """Whether the event brings a token, which need not have text that can be shown."""
    return any(choice.get("logprobs") or choice.get("text") or
               (choice.get("delta") or {}).get("content") for choice in event.get("choices", []))


def wait(replies, until=None):
    """Receives for all of them until each is done, or until() holds."""
    with selectors.DefaultSelector() as selector:
        for reply in replies:
            if not reply.done:
                selector.register(reply.socket, selectors.EVENT_READ, reply)
        while selector.get_map() and not (until and until()):
            ready = selector.select(PATIENCE)
            if not ready:
                raise SystemExit(f"no answer within {PATIENCE} s")
            for key, _ in ready:
                key.data.receive()
                if key.data.done:
                    selector.unregister(key.fileobj)
                    key.data.close()

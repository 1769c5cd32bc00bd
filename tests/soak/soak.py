#!/usr/bin/env python3
"""Serves many clients at once, most of them well behaved and some not, and looks whether the server
stays whole: every well-formed request is answered (200) or told to come again (429), some of them
with the very reply or scores that they got when they were alone, wrong ones are refused, nothing crashes, memory stays flat, and at the end it stops in good order.

Starts `marco serve` on a free port of the loopback, with keys, and ends it.
"""
import argparse
import asyncio
import collections
import json
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import mischief
from wire import Answer, Connection, Gone, request

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import launch  # noqa: E402

KEYS = [f"soak-key-{i:02d}-abcdefghijklmnop" for i in range(8)]
FORMATS = [{"type": "json_object"}, {"type": "json_schema", "json_schema": {
    "name": "sailor", "strict": True, "schema": {
        "type": "object", "additionalProperties": False, "required": ["name", "age"],
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}}}]
PATIENCE = 180  # seconds for an answer
WORDS = "the sea a ship of wood and rope goes out at dawn with bread for nine days".split()


class Soak:
    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.random = random.Random(arguments.seed)
        self.counts = collections.Counter()
        self.first, self.whole = [], []  # seconds of well-formed streams
        self.failures = []
        self.known = []  # (path, body, its content when it was asked alone)
        self.memory = []  # (time, bytes)

    # ---- the server ----

    def start(self):
        keys = os.path.join(self.folder, "keys")
        with open(keys, "w", encoding="utf-8") as file:
            file.write("".join(f"{key} client-{i}\n" for i, key in enumerate(KEYS)))
        os.chmod(keys, 0o600)
        self.launched = launch.Server(
            self.arguments.marco, "-m", self.arguments.model, "--api-key-file", keys,
            "--cache", "32M", *self.arguments.option)
        self.server, self.port = self.launched.process, self.launched.port

    def said(self):
        return self.launched.said(3000)

    def resident(self):
        try:
            with open(f"/proc/{self.server.pid}/status", encoding="ascii") as file:
                for line in file:
                    if line.startswith("VmRSS:"):
                        return int(line.split()[1]) * 1024
        except OSError:
            pass
        return 0

    def fail(self, what):
        self.counts["FAILED"] += 1
        if len(self.failures) < 30:
            self.failures.append(what)

    # ---- well-formed requests ----

    def text(self, longest):
        r = self.random
        # Some begin alike, so that the prefix cache has work.
        begin = "You are the captain of a ship. " if r.random() < 0.5 else ""
        return begin + " ".join(r.choice(WORDS) for _ in range(r.randint(1, longest)))

    def reply_request(self, stream):
        r = self.random
        tokens = r.choice([1, 2, 8, 16, 32, 64])
        kind = r.choice(["completions", "chat", "chat", "messages"])
        body = {"max_tokens": tokens, "stream": stream}
        if r.random() < 0.5:
            body["temperature"] = r.choice([0, 0.7, 1])
        if kind == "completions":
            body["prompt"] = self.text(40) if r.random() < 0.7 else \
                [self.text(10) for _ in range(r.randint(1, 3))]
            path = "/v1/completions"
        else:
            body["messages"] = [{"role": "user", "content": self.text(40)}]
            path = "/v1/chat/completions"
            if kind == "messages":
                path = "/v1/messages"
                body["model"] = self.arguments.name
            elif r.random() < 0.2:
                body["n"] = 2
            elif r.random() < 0.2:
                body["response_format"] = r.choice(FORMATS)
        return path, body

    def small_request(self):
        path = self.random.choice(["/health", "/version", "/metrics", "/v1/models", "/tokenize"])
        if path == "/tokenize":
            return "POST", path, {"prompt": self.text(10)}
        return "GET", path, None

    def check(self, path, body, answer):
        """What is wrong with an answer to a well-formed request, or None."""
        if answer.status == 429:
            return None if "retry-after" in answer.headers else "429 without Retry-After"
        if answer.status != 200:
            return f"{answer.status}: {bytes(answer.body[:300])!r}"
        if body and body.get("stream"):
            events = answer.events()
            if path == "/v1/messages":
                return None if events and json.loads(events[-1])["type"] == "message_stop" else \
                    "a stream without message_stop"
            if not events or events[-1] != b"[DONE]":
                return f"a stream that ends in {events[-1:]!r}"
            bad = [e for e in events[:-1] if "choices" not in json.loads(e)]
            return f"an event {bad[0]!r}" if bad else None
        if path in ("/v1/completions", "/v1/chat/completions"):
            value = answer.json()
            return None if value["choices"] and value["usage"]["completion_tokens"] >= 0 else \
                f"an answer without choices: {bytes(answer.body[:200])!r}"
        return None

    async def ask(self, kind, method, path, body):
        key = self.random.choice(KEYS)
        started = time.monotonic()
        answer = Answer()
        try:
            async with Connection(self.port) as c:
                await c.send(request(method, path, body, key))
                answer = await c.body(await c.head())
            wrong = self.check(path, body, answer)
        except (OSError, Gone, ValueError, KeyError, TypeError) as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            self.fail(f"{method} {path} {json.dumps(body)[:200]}: {wrong}")
        self.counts[f"{kind}: {answer.status or 'no answer'}"] += 1
        if body and body.get("stream") and answer.status == 200 and not wrong:
            self.first.append(answer.begun - started)
            self.whole.append(time.monotonic() - started)
        if answer.status == 429:
            await asyncio.sleep(self.random.uniform(0.05, 1))
        return answer

    # ---- requests whose answers are known ----

    def known_requests(self):
        greedy = {"temperature": 0, "seed": 1}
        for text in self.text(30), self.text(200), "You are the captain of a ship. Where to?":
            yield "/v1/completions", {"prompt": text, "max_tokens": 0, "echo": True, "logprobs": 5}
            yield "/v1/completions", {"prompt": [text, text[:9]], "max_tokens": 12, "n": 2, **greedy}
            chat = {"messages": [{"role": "user", "content": text}], "max_tokens": 24, **greedy}
            yield "/v1/chat/completions", {**chat, "logprobs": True, "top_logprobs": 2}
            yield "/v1/chat/completions", {**chat, "response_format": FORMATS[1]}

    @staticmethod
    def content(answer, streamed):
        """What of an answer does not depend on when it was asked for; of a stream the text."""
        if not streamed:
            return answer.json()["choices"]
        pieces = [json.loads(event)["choices"] for event in answer.events()[:-1]]
        return "".join(choice[0]["delta"].get("content") or "" for choice in pieces if choice)

    async def learn(self):
        for path, body in self.known_requests():
            async with Connection(self.port) as c:
                await c.send(request("POST", path, body, KEYS[0]))
                answer = await c.body(await c.head())
            if answer.status != 200:
                self.fail(f"{path} {json.dumps(body)[:200]}: {answer.status}")
                continue
            content = self.content(answer, False)
            self.known.append((path, body, content))
            if "chat" in path and "logprobs" not in body:
                self.known.append((path, {**body, "stream": True}, content[0]["message"]["content"]))

    async def again(self):
        if not self.known:
            return
        path, body, wanted = self.random.choice(self.known)
        streamed = body.get("stream", False)
        answer = await self.ask("known", "POST", path, body)
        if answer.status != 200:
            return
        self.counts["known: compared"] += 1
        found = self.content(answer, streamed)
        if found != wanted:
            self.fail(f"{path} {json.dumps(body)[:200]}: {json.dumps(found)[:300]} and, alone, "
                      f"{json.dumps(wanted)[:300]}")

    # ---- clients: each kind runs once and is chosen again ----

    async def plain(self):
        path, body = self.reply_request(False)
        await self.ask("whole reply", "POST", path, body)

    async def stream(self):
        path, body = self.reply_request(True)
        await self.ask("stream", "POST", path, body)

    async def small(self):
        await self.ask("small", *self.small_request())

    async def wrong_key(self):
        path, body = self.reply_request(self.random.random() < 0.5)
        key = self.random.choice([None, "wrong", KEYS[0][:-1], KEYS[0] + "x", "é" * 40])
        async with Connection(self.port) as c:
            await c.send(request("POST", path, body, key))
            answer = await c.body(await c.head())
        self.counts[f"wrong key: {answer.status}"] += 1
        if answer.status != 401:
            self.fail(f"the key {key!r} got {answer.status}")

    async def leaves(self):
        """Leaves in the middle of the reply, or while it waits."""
        r = self.random
        path, body = self.reply_request(r.random() < 0.8)
        body["max_tokens"] = 200
        async with Connection(self.port) as c:
            await c.send(request("POST", path, body, r.choice(KEYS)))
            try:
                await asyncio.wait_for(self.some_pieces(c, r.randint(0, 20)), r.uniform(0, 3))
            except asyncio.TimeoutError:
                pass
            if r.random() < 0.5:
                c.reset()
        self.counts["left"] += 1

    async def some_pieces(self, c, count):
        answer = await c.head()
        left = count

        async def piece(_):
            nonlocal left
            left -= 1
            return left < 0
        await c.body(answer, piece)
        if answer.status not in (200, 429):
            self.fail(f"{answer.status} to one who leaves: {bytes(answer.body[:200])!r}")

    async def slow(self):
        """Reads little at a time; leaves when that has taken long."""
        r = self.random
        path, body = self.reply_request(True)
        until = time.monotonic() + r.uniform(1, 15)
        async with Connection(self.port, buffer=2048) as c:
            await c.send(request("POST", path, body, r.choice(KEYS)))
            answer = await c.head()

            async def piece(_):
                await asyncio.sleep(r.uniform(0.02, 0.3))
                return time.monotonic() > until
            await c.body(answer, piece)
        self.counts[f"slow reader: {answer.status}"] += 1
        if answer.status not in (200, 429):
            self.fail(f"{answer.status} to a slow reader: {bytes(answer.body[:200])!r}")

    async def half_open(self):
        """Sends a part of a request and waits."""
        r = self.random
        data = request("POST", *self.reply_request(True), r.choice(KEYS))
        async with Connection(self.port) as c:
            await c.send(data[:r.randint(0, len(data) - 1)])
            try:
                await asyncio.wait_for(c.reader.read(1000), r.uniform(0.5, 10))
            except asyncio.TimeoutError:
                pass
        self.counts["half open"] += 1

    async def malformed(self):
        name, data, statuses = mischief.one(self.random, self.random.choice(KEYS))
        status = 0
        try:
            async with Connection(self.port) as c:
                await c.send(data)
                # What is no whole request may be waited for, so its sender tires first.
                answer = await asyncio.wait_for(c.head(), PATIENCE if statuses else 5)
                status = (await c.body(answer)).status
        except (OSError, Gone, asyncio.TimeoutError):
            pass
        self.counts[f"malformed: {status or 'no answer'}"] += 1
        if status not in (statuses or mischief.REFUSED) and (statuses or status):
            self.fail(f"{name}: {status or 'no answer'}")

    async def client(self, until):
        kinds = [self.plain, self.stream, self.small, self.wrong_key, self.leaves, self.slow,
                 self.half_open, self.malformed, self.again]
        await asyncio.sleep(self.random.uniform(0, min(2, self.arguments.seconds / 10)))
        while time.monotonic() < until and self.server.poll() is None:
            kind = self.random.choices(kinds, [3, 6, 2, 1, 3, 1, 1, 2, 3])[0]
            try:
                await asyncio.wait_for(kind(), PATIENCE)
            except asyncio.TimeoutError:
                self.fail(f"{kind.__name__}: no answer within {PATIENCE} s")
            except (OSError, Gone) as error:
                self.counts[f"{kind.__name__}: connection lost"] += 1
                if kind == self.wrong_key:
                    self.fail(f"a wrong key: {error}")
            await asyncio.sleep(self.random.expovariate(5))

    # ---- the lot ----

    async def watch(self, until):
        """Memory every second; keys are read again every ten."""
        ticks = 0
        while time.monotonic() < until and self.server.poll() is None:
            self.memory.append((time.monotonic(), self.resident()))
            ticks += 1
            if ticks % 10 == 0:
                self.server.send_signal(signal.SIGHUP)
            await asyncio.sleep(1)

    async def run(self):
        await self.learn()
        self.began = time.monotonic()
        until = self.began + self.arguments.seconds
        await asyncio.gather(self.watch(until),
                             *(self.client(until) for _ in range(self.arguments.clients)))
        # All have left: the server must be as fit as at the start.
        if self.server.poll() is None:
            await asyncio.sleep(0.5)
            await self.ask("at the end", "POST", "/v1/completions", {"prompt": "x", "max_tokens": 4})

    def stop(self):
        """Its exit status, after asking it to stop."""
        if self.server.poll() is not None:
            self.fail(f"the server ended by itself, exit status {self.server.returncode}:\n"
                      f"{self.said()}")
            return
        self.server.send_signal(signal.SIGTERM)
        try:
            status = self.server.wait(120)
        except subprocess.TimeoutExpired:
            self.fail("the server does not stop")
            return
        if status != 0:
            self.fail(f"the server's exit status was {status}:\n{self.said()}")

    def sizes(self, begin, end):
        """The server's memory between two shares of the time."""
        length = self.arguments.seconds
        return [size for at, size in self.memory
                if begin * length <= at - self.began < end * length and size]

    def growth(self):
        """Of the last quarter's median over that of the second, the first being the warm-up: what
        a burst takes and gives back is no leak."""
        early, late = self.sizes(0.25, 0.5), self.sizes(0.75, 1)
        return statistics.median(late) / statistics.median(early) - 1 if early and late else None


def seconds(values):
    if not values:
        return "none"
    ordered = sorted(values)
    return ", ".join(f"{name} {ordered[min(len(ordered) - 1, int(share * len(ordered)))]:.2f}"
                     for name, share in (("median", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1)))


def mb(sizes):
    return f"{statistics.median(sizes) / 1e6:.1f} MB"


def report(soak):
    arguments, growth = soak.arguments, soak.growth()
    if not soak.counts["known: compared"]:
        soak.fail("no answer could be compared with the one got alone")
    if arguments.flat and (growth is None or growth > arguments.flat / 100):
        soak.fail("memory grew by more than it may (below)")
    print(f"{arguments.clients} clients, {arguments.seconds:.0f} s")
    for name, count in sorted(soak.counts.items()):
        print(f"  {name}: {count}")
    print(f"  streams, seconds to the first byte: {seconds(soak.first)}")
    print(f"  streams, seconds in all: {seconds(soak.whole)}")
    if growth is not None:
        print(f"  memory, median of the second quarter {mb(soak.sizes(0.25, 0.5))}, of the last "
              f"{mb(soak.sizes(0.75, 1))} ({100 * growth:+.1f} %), most "
              f"{max(soak.sizes(0, 2)) / 1e6:.1f} MB")
    for failure in soak.failures:
        print(f"FAILED: {failure}")
    if not soak.whole:
        print("FAILED: not one stream was answered")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"counts": soak.counts, "first": soak.first, "whole": soak.whole,
                       "memory": soak.memory, "failures": soak.failures}, file)
    return not soak.failures and bool(soak.whole)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                     epilog="What follows -- is for marco serve's command line.")
    parser.add_argument("marco", help="the program")
    parser.add_argument("--model", help="unless given, one is made, of random weights")
    parser.add_argument("--shape", default="marco-nano",
                        help="its shape (marco-nano, which is 0.5 GB with its one layer)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=10, help="how long (10)")
    length.add_argument("--seconds", type=float, help="the same in seconds")
    parser.add_argument("--clients", type=int, default=200, help="at once (200)")
    parser.add_argument("--seed", type=int, default=1, help="of what clients do (1)")
    parser.add_argument("--flat", type=float, default=2, metavar="PERCENT",
                        help="growth of memory that is too much (2); 0: any goes")
    parser.add_argument("--json", metavar="FILE", help="write every measurement to FILE")
    own, more = sys.argv[1:], []
    if "--" in own:
        own, more = own[:own.index("--")], own[own.index("--") + 1:]
    arguments = parser.parse_args(own)
    arguments.option = more
    if arguments.seconds is None:
        arguments.seconds = 60 * arguments.minutes
    if arguments.clients < 1 or arguments.seconds <= 0:
        parser.error("some clients and some time are needed")
    return arguments


def main():
    arguments = parse()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, most), most))
    with tempfile.TemporaryDirectory(prefix="marco-soak.") as folder:
        if not arguments.model:
            arguments.model = os.path.join(folder, "model.gguf")
            subprocess.run([arguments.marco, "synth", arguments.shape, arguments.model,
                            "--layers", "1", "--quiet"], check=True)
        arguments.name = "default"
        arguments.model = f"default={arguments.model}"
        soak = Soak(arguments, folder)
        soak.start()
        try:
            asyncio.run(soak.run())
            soak.stop()
        finally:
            if soak.server.poll() is None:
                soak.server.kill()
            soak.server.wait()
        return 0 if report(soak) else 1


if __name__ == "__main__":
    sys.exit(main())

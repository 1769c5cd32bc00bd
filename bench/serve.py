#!/usr/bin/env python3
"""What serving costs and how requests share one model.

Starts `marco serve` itself. Prompts are random token ids, or random words in chats, new ones every
time, so that nothing is in the prefix cache but what is meant to be; replies have a fixed length.
Each measurement is a ratio of two that are taken in turns:

streams   total tokens/s of --streams requests at once, against one
newcomer  a prompt of --prompt tokens arrives while 4 others decode: the 99th percentile of the time
          between their tokens while it is read, against before; its first token against alone
turn      time to first token of a chat's second turn, against the first's of --prompt tokens
http      tokens/s of one stream, against `marco bench`'s decoding; two processes may be at odds by
          more than the overhead, so also against what the server's own forward passes took
mask      tokens/s under a JSON schema, against without
"""
import argparse
import math
import random

import common
from serve_client import Reply, Server, wait

DECODING = 4  # the others, when a newcomer arrives
CALM = 24     # tokens of each of them before it does
NEWCOMER = 8  # tokens of its own


class Bench:
    def __init__(self, arguments, shape):
        self.arguments = arguments
        self.random = random.Random(arguments.seed)
        self.vocabulary = shape["shape"]["vocabulary"]
        if (shape.get("tokenizer") or {}).get("merges"):
            self.vocabulary = shape["tokenizer"]["tokens"]  # without added and padding tokens
        self.context = min(shape["shape"]["context"], arguments.prompt + 2048)
        self.results = {}

    def server(self):
        options = ["--ctx", str(self.context), "--parallel", str(self.arguments.streams)]
        if self.arguments.threads:
            options += ["--threads", str(self.arguments.threads)]
        return Server(self.arguments.marco, self.arguments.model, *options,
                      *self.arguments.serve.split())

    # ---- requests ----

    def ids(self, count):
        return [self.random.randrange(self.vocabulary) for _ in range(count)]

    def completion(self, server, prompt, tokens, **more):
        # With logprobs every token is an event, also one that is no whole character.
        return Reply(server.port, "/v1/completions",
                     {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "logprobs": 0,
                      "temperature": 1, "seed": self.random.randrange(1 << 31), **more})

    def chat(self, server, messages, tokens, **more):
        return Reply(server.port, "/v1/chat/completions",
                     {"messages": messages, "max_tokens": tokens, "ignore_eos": True,
                      "logprobs": True, "seed": self.random.randrange(1 << 31), **more})

    def words(self, characters):
        text = ""
        while len(text) < characters:
            text += "".join(self.random.choice("abcdefghijklmnoprstuvwy")
                            for _ in range(self.random.randint(2, 8))) + " "
        return text[:characters]

    def warm(self, server):
        wait([self.completion(server, self.ids(8), 8)])

    # ---- measurements: each adds rounds to self.results ----

    def together(self, server, count):
        replies = [self.completion(server, self.ids(16), self.arguments.tokens)
                   for _ in range(count)]
        wait(replies)
        tokens = sum(reply.usage()[2] for reply in replies)
        end = max(at for reply in replies for at, _ in reply.events)
        return tokens / (end - min(reply.sent for reply in replies))

    def streams(self, server):
        one = self.together(server, 1)
        many = self.together(server, self.arguments.streams)
        self.note("streams", one=one, many=many, ratio=many / one)

    def newcomer(self, server):
        alone = self.completion(server, self.ids(self.arguments.prompt), NEWCOMER)
        wait([alone])
        room = self.context - 16
        others = [self.completion(server, self.ids(8), room) for _ in range(DECODING)]
        wait(others, lambda: all(len(other.events) > CALM for other in others))
        newcomer = self.completion(server, self.ids(self.arguments.prompt), NEWCOMER)
        wait([*others, newcomer], lambda: newcomer.first is not None)
        if any(other.done for other in others):
            raise SystemExit("the others' replies ended before the newcomer's prompt was read: "
                             "give --prompt less or a model with a longer context")
        for reply in [*others, newcomer]:
            reply.close()
        begun = max(other.first for other in others)
        before = gaps(others, begun, newcomer.sent)
        during = gaps(others, newcomer.sent, newcomer.first)
        self.note("newcomer", before_ms=1e3 * p99(before), during_ms=1e3 * p99(during),
                  ratio=p99(during) / p99(before), pieces=len(during),
                  alone_seconds=alone.first - alone.sent,
                  first_seconds=newcomer.first - newcomer.sent,
                  first_ratio=(newcomer.first - newcomer.sent) / (alone.first - alone.sent))

    def turn(self, server):
        probe = self.chat(server, [{"role": "user", "content": self.words(500)}], 1)
        wait([probe])
        characters = 500 * self.arguments.prompt // probe.usage()[0]
        messages = [{"role": "user", "content": self.words(characters)}]
        first = self.chat(server, messages, 16)
        wait([first])
        messages += [{"role": "assistant", "content": first.content() or "Yes."},
                     {"role": "user", "content": "And what follows from that?"}]
        second = self.chat(server, messages, 16)
        wait([second])
        prompt, cached, _ = second.usage()
        self.note("turn", first_ms=1e3 * (first.first - first.sent),
                  second_ms=1e3 * (second.first - second.sent), prompt=prompt, cached=cached,
                  ratio=(second.first - second.sent) / (first.first - first.sent))

    def served(self):
        """Tokens/s of a reply, and what the server's own forward passes would allow."""
        with self.server() as server:
            self.warm(server)
            busy = server.metric("marco_busy_seconds_total")
            reply = self.completion(server, self.ids(1), self.arguments.tokens, temperature=0)
            wait([reply])
            busy = server.metric("marco_busy_seconds_total") - busy
        return reply.decode_rate(), self.arguments.tokens / busy

    def http(self):
        first, first_passes = self.served()
        report = common.bench(self.arguments, "--decode", "0", "--tokens",
                              str(self.arguments.tokens), "--reps", "1")
        plain = report["results"][0]["tok_s"]["median"]
        second, second_passes = self.served()
        served, passes = (first + second) / 2, (first_passes + second_passes) / 2
        self.note("http", served=served, plain=plain, overhead=plain / served - 1, passes=passes,
                  own_overhead=passes / served - 1)

    def mask(self, server):
        messages = [{"role": "user", "content": self.words(40)}]
        for name, schema in SCHEMAS.items():
            form = {"type": "json_schema",
                    "json_schema": {"name": name, "strict": True, "schema": schema}}
            rates = []
            for more in ({}, {"response_format": form}, {"response_format": form}, {}):
                reply = self.chat(server, messages, self.arguments.tokens, **more)
                wait([reply])
                if reply.usage()[2] < self.arguments.tokens:
                    raise SystemExit(f"the reply under the schema {name} ended early")
                rates.append(reply.decode_rate())
            free, bound = (rates[0] + rates[3]) / 2, (rates[1] + rates[2]) / 2
            self.note("mask", schema=name, free=free, bound=bound, cost=free / bound - 1)

    # ---- the lot ----

    def note(self, name, **row):
        self.results.setdefault(name, []).append(row)
        common.say(f"{name}: " + ", ".join(
            f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}"
            for key, value in row.items()))

    def run(self):
        wanted = self.arguments.only
        shared = [name for name in ("streams", "newcomer", "turn", "mask") if name in wanted]
        if shared:
            with self.server() as server:
                self.warm(server)
                for _ in range(self.arguments.rounds):
                    for name in shared:
                        getattr(self, name)(server)
        if "http" in wanted:
            for _ in range(self.arguments.rounds):
                self.http()


# The first keeps to few tokens that may follow, the second to nearly all of them.
SCHEMAS = {
    "list": {"type": "array", "minItems": 100, "items": {
        "type": "object", "additionalProperties": False, "required": ["id", "kind", "ok"],
        "properties": {"id": {"type": "integer"}, "kind": {"enum": ["red", "green", "blue"]},
                       "ok": {"type": "boolean"}}}},
    "text": {"type": "object", "additionalProperties": False, "required": ["text"],
             "properties": {"text": {"type": "string", "minLength": 1000}}},
}


def gaps(replies, begin, end):
    """Times between one token and the next of the same reply, those that end between the two."""
    found = []
    for reply in replies:
        times = reply.token_times()
        found += [b - a for a, b in zip(times, times[1:]) if begin < b <= end]
    if not found:
        raise SystemExit("no token of the others came while the newcomer's prompt was read")
    return found


def p99(values):
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


def rows(results, arguments):
    def column(name, key, scale=1.0, **where):
        return [scale * row[key] for row in results[name]
                if all(row[k] == v for k, v in where.items())]

    out = []
    if "streams" in results:
        out.append([f"{arguments.streams} streams, tokens/s against one's",
                    common.show(column("streams", "one")), common.show(column("streams", "many")),
                    common.show(column("streams", "ratio")), "1.6 or more"])
    if "newcomer" in results:
        out.append([f"others' p99 between tokens, ms: before, while {arguments.prompt} are read",
                    common.show(column("newcomer", "before_ms"), 1),
                    common.show(column("newcomer", "during_ms"), 1),
                    common.show(column("newcomer", "ratio")), "3 or less"])
        out.append(["newcomer's first token, s: alone, beside 4",
                    common.show(column("newcomer", "alone_seconds")),
                    common.show(column("newcomer", "first_seconds")),
                    common.show(column("newcomer", "first_ratio")), "3 or less"])
    if "turn" in results:
        out.append([f"chat of {results['turn'][0]['prompt']} tokens, first token, ms: "
                    "first turn, second", common.show(column("turn", "first_ms"), 1),
                    common.show(column("turn", "second_ms"), 1),
                    common.show(column("turn", "ratio"), 3), "0.1 or less"])
    if "http" in results:
        out.append(["one stream, tokens/s: `marco bench`, served",
                    common.show(column("http", "plain")), common.show(column("http", "served")),
                    common.show(column("http", "overhead", 100), 1) + " %", "3 % or less"])
        out.append(["the same, tokens/s: the server's passes alone, served",
                    common.show(column("http", "passes")), common.show(column("http", "served")),
                    common.show(column("http", "own_overhead", 100), 1) + " %", "3 % or less"])
    if "mask" in results:
        for name in SCHEMAS:
            out.append([f"JSON schema \"{name}\", tokens/s: without, with",
                        common.show(column("mask", "free", schema=name)),
                        common.show(column("mask", "bound", schema=name)),
                        common.show(column("mask", "cost", 100, schema=name), 1) + " %",
                        "5 % or less"])
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_arguments(parser)
    names = ["streams", "newcomer", "turn", "http", "mask"]
    parser.add_argument("--only", default=",".join(names), help="measurements, with commas")
    parser.add_argument("--streams", type=int, default=8, help="requests at once (8)")
    parser.add_argument("--prompt", type=int, default=4000, help="tokens of the long prompt (4000)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a reply (64)")
    parser.add_argument("--seed", type=int, default=1, help="of prompts and sampling (1)")
    parser.add_argument("--serve", default="", metavar="OPTIONS",
                        help="more options for marco serve, in one word: --serve=\"--kv q8_0\"")
    arguments = common.parse(parser)
    arguments.only = arguments.only.split(",")
    for name in arguments.only:
        if name not in names:
            parser.error(f"--only {name}: {', '.join(names)}")
    for name in ("streams", "prompt", "tokens"):
        if getattr(arguments, name) < 2:
            parser.error(f"--{name} must be 2 or more")
    shape = common.run_json([arguments.marco, "inspect", "-m", arguments.model, "--json"])
    if arguments.prompt + 64 > shape["shape"]["context"]:
        parser.error(f"--prompt {arguments.prompt}: the model's context is "
                     f"{shape['shape']['context']}")
    bench = Bench(arguments, shape)
    bench.run()
    print(f"{arguments.model}: median (smallest to largest) of {arguments.rounds} rounds:\n")
    common.table(["", "first", "second", "ratio", "bar"], rows(bench.results, arguments))
    common.write(arguments, {name: {"rounds": found} for name, found in bench.results.items()})


if __name__ == "__main__":
    main()

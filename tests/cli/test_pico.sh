#!/bin/sh
# recipes/pico: what its corpus keeps and drops, and the whole recipe on a small corpus, stopped
# hard and gone on with.
pico=$(cd "$(dirname "$0")/../../recipes/pico" && pwd)
docs=$(cd "$(dirname "$0")/../../docs" && pwd)
. "$(dirname "$0")/common.sh"

# ---- corpus: a package with a file of every kind

corpus() {
    python3 -B "$pico/corpus.py" "$@"
}

if command -v dpkg-deb >/dev/null; then
    python3 - <<'END'
import gzip, hashlib, io, json, os, struct, zipfile
held = lambda key: hashlib.sha256(key.encode()).hexdigest()[0] in "01"
root = "package"
def put(path, data):
    path = os.path.join(root, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())
def catalogue(pairs):
    pairs = sorted((k.encode(), v.encode()) for k, v in pairs)
    tables, data, place = [b"", b""], b"", 28 + 16 * len(pairs)
    for side in range(2):
        for pair in pairs:
            tables[side] += struct.pack("<2I", len(pair[side]), place + len(data))
            data += pair[side] + b"\0"
    n = len(pairs)
    return struct.pack("<7I", 0x950412DE, 0, n, 28, 28 + 8 * n, 0, 0) + b"".join(tables) + data
put("DEBIAN/control", "Package: mediawiki\nVersion: 1.0-1\nArchitecture: all\n"
    "Maintainer: nobody <nobody@example.org>\nDescription: test\n")
put("usr/share/doc/mediawiki/copyright", "Files: *\nLicense: GPL-2+\n text\n")
keys = ["message-%d" % i for i in range(64)]
for lang, text in (("de", "Nachricht mit der Nummer %d liegt vor."),
                   ("en", "Message number %d is here."), ("zh-hans", "这是第%d条消息。")):
    put("usr/share/mediawiki/languages/i18n/%s.json" % lang,
        json.dumps({"@metadata": {}, **{k: text % i for i, k in enumerate(keys)}}))
put("usr/share/mediawiki/skins/X/i18n/de.json", json.dumps({
    "x-links": "Siehe [[Hilfe:Seite|die ''Hilfe'']] und "
               "<b>{{PLURAL:$1|eine Datei|$1 Dateien}}</b>.",
    "x-fallback": "This text was not translated and will be left out.",
    "x-place": "$1: $2",
    "x-twice": "Nachricht mit der Nummer %d liegt vor!" % next(
        i for i, k in enumerate(keys) if not held(k))}))
secret = next(i for i, k in enumerate(keys) if held(k))
put("usr/share/locale/de/LC_MESSAGES/x.mo", catalogue([
    ("", "Language: de"), ("_Open File", "Datei ö_ffnen"), ("Ellipse", "Ellipse"),
    ("one\0many", "Eine Zeile\0Viele Zeilen"), ("menu\x04Close (_C)", "Schließen (_C)"),
    ("Europe/Berlin", "Europa/Berlin"),
    ("Stolen", "Nachricht mit der Nummer %d liegt vor." % secret)]))
put("usr/share/libreoffice/help/de/text/a.html",
    "<html><head><title>T</title></head><body><header>Kopfzeile dort</header>"
    "<p>Ein <b>Absatz</b> "
    "aus&nbsp;Worten, ein wenig länger.</p><pre>kein Text hier</pre><p>Drücken Sie <span><span id=\"MACa\" "
    "class=\"MAC\"><span>Befehl</span></span><span>Strg</span></span>+V.</p></body></html>")
put("usr/share/man/uk/man1/x.1.gz", gzip.compress((
    ".TH X 1\n.SH НАЗВА\nкоманда \\fBx\\fP \\- робить\nце добре.\n.PP\n.nf\nприклад коду\n.fi\n"
    ".B Далі\nйде текст.\n").encode()))
pack = io.BytesIO()
with zipfile.ZipFile(pack, "w") as file:
    file.writestr("a.ftl", "# c\nname = { -brand-short-name } speichert\n    eine Datei\n"
                  "other =\n    .label = Neues Fenster\ncount = { $n } Dateien sind da\n")
put("usr/lib/firefox-esr/langpack-de@firefox-esr.mozilla.org.xpi", pack.getvalue())
END
    mkdir -p packages
    works dpkg-deb --root-owner-group -b package packages/mediawiki_1.0-1_all.deb
    printf '%s\n' 'Ein Absatz aus Worten, ein wenig länger!  ' >keep.txt
    works corpus made --packages packages --quick
    python3 - >out 2>err <<'END' || fail 'corpus'
import hashlib, json
held = lambda key: hashlib.sha256(key.encode()).hexdigest()[0] in "01"
def rows(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]
text = {lang: "\n".join(row["text"] for row in rows("made/%s.jsonl" % lang)).split("\n")
        for lang in ("de", "en", "zh", "uk")}
for lang, form in (("de", "Nachricht mit der Nummer %d liegt vor."),
                   ("en", "Message number %d is here."), ("zh", "这是第%d条消息。")):
    kept = {row["key"]: row["text"] for row in rows("made/held-out/%s.jsonl" % lang)}
    assert kept and all(map(held, kept)), lang
    for i in range(64):
        key = "message-%d" % i
        assert (kept.get(key) == form % i) == held(key), (lang, key)
        assert text[lang].count(form % i) == (not held(key)), (lang, key)
de = text["de"]
for line in ("Siehe die Hilfe und $1 Dateien.", "Datei öffnen", "Eine Zeile", "Viele Zeilen",
             "Schließen", "Ein Absatz aus Worten, ein wenig länger.", "Drücken Sie Strg+V.",
             "Firefox speichert eine Datei", "Neues Fenster"):
    assert line in de, (line, de)
whole = "\n".join(de)
for part in ("translated", "$2", "Ellipse", "Berlin", "Kopfzeile", "kein Text", "sind da", "vor!"):
    assert part not in whole, part
assert text["uk"] == ["команда x - робить це добре.", "Далі йде текст."], text["uk"]
about = json.load(open("made/corpus.json", encoding="utf-8"))
package = about["packages"]["mediawiki"]
assert package["version"] == "1.0-1" and package["licences"] == ["GPL-2+"], package
size = sum(len(row["text"].encode()) for row in rows("made/de.jsonl"))
assert about["languages"]["de"]["bytes"] == size
END
    checks=$((checks + 1))
    works corpus again --packages packages --quick
    check 'the same packages give the same bytes' diff -r made again
    refuses 1 'made is there already' corpus made --packages packages --quick
    works corpus less --packages packages --quick --budget 900 --exclude keep.txt
    check 'a budget' python3 -c '
import json
about = json.load(open("less/corpus.json"))
assert all(item["bytes"] <= 900 for item in about["languages"].values())
assert about["languages"]["de"]["bytes"] > 500'
    check 'a text kept for evaluation' sh -c '! grep -q "Ein Absatz aus" less/de.jsonl'
    head -c 300 packages/mediawiki_1.0-1_all.deb >packages/cut && mv packages/cut \
        packages/mediawiki_1.0-1_all.deb
    refuses 1 "mediawiki_1.0-1_all.deb: .*can't read it" corpus cut --packages packages --quick
    check 'nothing half-made' [ ! -e cut ]
fi

# ---- the whole recipe

mkdir texts
python3 - "$docs" <<'END'
import glob, json, sys
for i, path in enumerate(sorted(glob.glob(sys.argv[1] + "/*.md"))):
    with open(path, encoding="utf-8") as file:
        paragraphs = file.read().split("\n\n")
    with open("texts/%s.jsonl" % ("ab"[i % 2]), "a", encoding="utf-8") as out:
        for paragraph in paragraphs:
            out.write(json.dumps({"text": paragraph}) + "\n")
# As other programs may write it: all this is left out.
with open("texts/b.jsonl", "r+", encoding="utf-8") as file:
    lines = file.read()
    file.seek(0)
    file.write("\ufeff\n  \r\n" + lines.replace("}\n", "}\r\n", 3) + "\n")
END

cat >go <<END
exec python3 -B "$pico/run" --quick --corpus texts --marco "$marco" --seeds 1 \\
    --set vocabulary=512 --set seq_len=64 --set parent.steps=16 --set parent.warmup=2 \\
    --set continued.steps=12 --set continued.warmup=2 "\$@"
END

works sh go --out whole
for file in report.html report.md report.json curves.html; do
    check "$file" [ -s "whole/report/$file" ]
done
check 'every language has its row' grep -Eq '^\| b \| [0-9,]+ \| [0-9.]+ \|' whole/report/report.md
works sh go --out whole
check 'all is found done' [ "$(grep -c ': done$' err)" -eq 11 ]
check 'and nothing else was done' [ "$(grep -vc ': done$' err)" -eq 1 ]
refuses 1 'with seeds 1 and not 2' sh go --out whole --seeds 2
refuses 1 'no such setting' sh go --out other --set parent.stepz=1
refuses 1 'no LANG.jsonl' sh go --out other --corpus .
check 'bytes held out are counted' python3 -c '
import json
rows = json.load(open("whole/report/report.json"))["data"]
assert all(0 < row["valid_bytes"] < row["text_bytes"] for row in rows.values()), rows'

# ---- what cannot be worked with is one line

echo mine >file
refuses 1 'file is a file: name a folder' sh go --out file
check 'and stays' [ "$(cat file)" = mine ]
refuses 1 'file/below: Not a directory' sh go --out file/below
mkdir empty
: >empty/settings.json
refuses 1 'empty/settings.json is damaged: name another folder' sh go --out empty
cp -r texts odd
cp odd/a.jsonl odd/.jsonl
refuses 1 "odd/.jsonl.*another name" sh go --out other --corpus odd
mv odd/.jsonl "odd/$(printf 'f\374r').jsonl"
refuses 1 'odd/f.udcfcr.jsonl.*another name' sh go --out other --corpus odd
refuses 1 'nowhere: no such file' sh go --out other --exclude nowhere
check 'nothing is made of what is refused' [ ! -e other ]
# Texts that were changed, or came, when data had been made.
cp texts/a.jsonl kept
echo '{"text": "one more"}' >>texts/a.jsonl
cp kept texts/c.jsonl
refuses 1 'texts: a.jsonl, c.jsonl: not as when .*whole was begun' sh go --out whole
cp kept texts/a.jsonl
rm texts/c.jsonl
works sh go --out whole

# Killed, all processes at once, while the upcycled model trains: then gone on with.
setsid sh go --out cut 2>cut.err &
child=$!
while kill -0 $child 2>/dev/null && ! grep -q '"kind":"step"' cut/runs/scaled-1/metrics.jsonl \
    2>/dev/null; do sleep 0.02; done
kill -KILL -$child
wait $child 2>/dev/null
check 'it was cut' [ ! -e cut/report ]
works sh go --out cut
check 'what was done is found done' grep -q 'train parent: done' err
check 'cut and whole reach the same' python3 -c '
import json
def numbers(path):
    models = json.load(open(path + "/report/report.json"))["models"]
    return {name: (model["loss"], model["languages"]) for name, model in models.items()}
whole, cut = numbers("whole"), numbers("cut")
assert whole == cut and len(whole) == 5, (whole, cut)'

finish

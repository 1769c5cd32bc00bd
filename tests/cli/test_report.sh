#!/bin/sh
# marco report: a page that stands alone, of runs as they are found.
. "$(dirname "$0")/common.sh"

python3 - <<'END'
import json, os
def run(name, steps, experts, loss):
    os.mkdir(name)
    with open(f"{name}/metrics.jsonl", "w") as f:
        def line(**fields):
            f.write(json.dumps(fields) + "\n")
        line(kind="run", time=1790000000, resumed=0, recipe={"name": name, "steps": steps},
             plan={"total_params": 1234567, "active_params": 345678, "trained_params": 1234567})
        for step in range(1, steps + 1):
            line(kind="step", step=step, loss=loss + 5 / step, lr=1e-3, norm=1 + step % 3,
                 skipped=step == 7, total_tokens=step * 512, seconds=0.1, tokens_per_second=5120,
                 entropy=1.2, dead_experts=1, balance=0.01, z_loss=0.001)
            if step % 10 == 0:
                line(kind="valid", step=step, loss=loss + 5 / step,
                     per_source={"news & more": loss})
                line(kind="load", step=step,
                     layers=[[1 / experts] * experts for _ in range(2)] if experts else [])
run("moe", 120, 8, 2)
run("dense", 40, 0, 3)
END

# Prints what is not as it should be: elements that do not match, what a page alone cannot have.
cat >look.py <<'END'
import html.parser, sys
class Look(html.parser.HTMLParser):
    open_, count = [], {}
    def handle_starttag(self, tag, attributes):
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag in ("script", "link", "img", "iframe", "object"):
            print("element", tag)
        for key, value in attributes:
            if key in ("src", "href") or key.startswith("on") or "url(" in (value or ""):
                print("attribute", key, value)
        if tag not in ("meta",):
            self.open_.append(tag)
    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open_.pop()
    def handle_endtag(self, tag):
        if not self.open_ or self.open_.pop() != tag:
            print("end of", tag)
with open(sys.argv[1], encoding="utf-8") as file:
    look = Look()
    text = file.read()
    look.feed(text)
if look.open_ or "url(" in text or "@import" in text or "http" in text.replace("http-equiv", ""):
    print("open:", look.open_)
if look.count["figure"] != int(sys.argv[2]):
    print(look.count["figure"], "figures")
END

works "$marco" report moe -o one.html
check 'a summary' grep -q 'wrote one.html' err
python3 look.py one.html 10 >odd
check "a page that stands alone: $(cat odd)" [ ! -s odd ]
check 'a source' grep -q 'news &amp; more' one.html
check 'a circle for the step left out' [ "$(grep -c 'class="mark' one.html)" -eq 1 ]
check 'the load' grep -q 'path class="h4" d="M0 0h8v1h-8zM0 1h8v1h-8z"' one.html

works "$marco" report dense moe -o two.html --json
json 'rows[0]["output"] == "two.html" and rows[0]["bytes"] == __import__("os").path.getsize("two.html")'
python3 look.py two.html 10 >odd
check "a page of two: $(cat odd)" [ ! -s odd ]
check 'what differs is set off' [ "$(grep -c 'tr class="differs"' two.html)" -eq 2 ]
works "$marco" report dense/ -o dense.html --quiet
check 'quiet' [ ! -s err ]
check 'a name without its slash' grep -q '<bdi>dense</bdi></h1>' dense.html
python3 look.py dense.html 4 >odd
check "no experts: $(cat odd)" [ ! -s odd ]

# ---- a run that goes on while it is read
printf '{"kind":"step","st' >>moe/metrics.jsonl
refuses 1 'one\.html.*exists' "$marco" report moe -o one.html
works "$marco" report moe -o one.html --overwrite
check 'it is said' grep -q 'last line of its metrics is incomplete' one.html

# ---- refusals
refuses 2 'needs' "$marco" report moe
refuses 2 'needs' "$marco" report -o x.html
refuses 1 'nowhere: no such folder' "$marco" report moe nowhere -o x.html
mkdir bare
refuses 1 'bare/metrics\.jsonl' "$marco" report bare -o x.html
mkdir other
echo 'once upon a time' >other/metrics.jsonl
refuses 1 'other/metrics\.jsonl: line 1' "$marco" report other -o x.html
refuses 1 'no-folder' "$marco" report moe -o no-folder/x.html
check 'nothing is left' [ ! -e x.html ]
cp moe/metrics.jsonl metrics
ln moe/metrics.jsonl hard
ln -s moe/metrics.jsonl soft
for name in moe/metrics.jsonl dense/../moe/metrics.jsonl hard soft; do
    refuses 1 "$name holds the metrics" "$marco" report dense moe -o "$name" --overwrite
done
check 'the metrics are as they were' cmp metrics moe/metrics.jsonl
finish

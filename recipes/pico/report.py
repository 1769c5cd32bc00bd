"""The report of a run: what each kind of model reached, over seeds and in each language."""

import html
import json
import math
import os

LABELS = {
    "parent": "dense parent",
    "dense": "parent trained further",
    "scaled": "upcycled with scaling",
    "unscaled": "upcycled without scaling",
    "scratch": "mixture from scratch",
}


# ---- reading --------------------------------------------------------------------------------


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def read_run(folder):
    """Of a run's metrics: its plan, steps and validations, each step once, the last time it was
    taken. A line cut short by a kill is passed over."""
    plan, steps, valids = None, {}, {}
    with open(os.path.join(folder, "metrics.jsonl"), encoding="utf-8") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            kind = row.get("kind")
            if kind == "run":
                plan = row["plan"]
            elif kind == "step":
                steps[row["step"]] = row
            elif kind == "valid":
                valids[row["step"]] = row
    return {"plan": plan, "steps": steps, "valids": valids}


def bits_per_byte(loss, stats):
    """Of a loss in nats a token, over text whose documents each end with one token more."""
    tokens = stats["valid_tokens"] + stats["valid_documents"]
    return loss * tokens / stats["valid_bytes"] / math.log(2)


def summary(values):
    n = len(values)
    mean = sum(values) / n
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1)) if n > 1 else None
    return {"mean": mean, "sd": spread, "min": min(values), "max": max(values), "values": values}


def measure(run, stats):
    """What a run's last validation says: the loss over all, bits per byte by language and their
    mean."""
    last = run["valids"][max(run["valids"])]
    languages = {lang: bits_per_byte(loss, stats[lang])
                 for lang, loss in last["per_source"].items() if loss is not None}  # fmt: skip
    steps = run["steps"].values()
    seconds = sum(s["seconds"] for s in steps)
    return {
        "loss": last["loss"],
        "loss_before": run["valids"][min(run["valids"])]["loss"],
        "bits": sum(languages.values()) / len(languages),
        "languages": languages,
        "tokens": sum(s["tokens"] for s in steps),
        "seconds": seconds,
        "roof_share": sum((s["roof_share"] or 0) * s["seconds"] for s in steps) / seconds
        if seconds
        else 0,
        "dead_experts": max((s["dead_experts"] for s in list(steps)[-10:]), default=0),
        "total_params": run["plan"]["total_params"],
        "active_params": run["plan"]["active_params"],
    }


def collect(out, settings, languages, variants):
    """Everything the report says, as JSON."""
    stats = {lang: read_json(os.path.join(out, "data-stats", lang + ".json")) for lang in languages}
    seeds = range(1, settings["seeds"] + 1)
    parent = measure(read_run(os.path.join(out, "runs", "parent")), stats)
    models = {"parent": {"runs": [parent]}}
    for variant in variants:
        models[variant] = {"runs": [
            measure(read_run(os.path.join(out, "runs", f"{variant}-{seed}")), stats)
            for seed in seeds]}  # fmt: skip
    for model in models.values():
        for key in ("loss", "bits"):
            model[key] = summary([run[key] for run in model["runs"]])
        shared = set.intersection(*(set(run["languages"]) for run in model["runs"]))
        model["languages"] = {
            lang: summary([run["languages"][lang] for run in model["runs"]])
            for lang in languages if lang in shared}  # fmt: skip
    return {"settings": settings, "data": stats, "models": models}


def differences(models, a, b):
    """Loss of a minus that of b, seed by seed: they saw the same data in the same order."""
    pairs = zip(models[a]["runs"], models[b]["runs"])
    return summary([x["loss"] - y["loss"] for x, y in pairs])


# ---- writing --------------------------------------------------------------------------------


def number(value, digits=4):
    return f"{value:.{digits}f}"


def with_spread(s):
    text = number(s["mean"])
    if s["sd"] is None:
        return text
    return f"{text} ± {number(s['sd'])} ({number(s['min'])} to {number(s['max'])})"


def verdict(models):
    """Whether the order of the published ablation came out, and in every seed."""
    order = ("scaled", "unscaled", "scratch")
    pairs = [(a, b, differences(models, a, b)) for a, b in zip(order, order[1:])]
    if all(d["max"] < 0 for _, _, d in pairs):
        text = "It came out, in every seed."
    elif all(d["mean"] < 0 for _, _, d in pairs):
        text = "It came out in the mean, but not in every seed."
    else:
        text = "It did not come out: " + "; ".join(
            f"{LABELS[a]} is not below {LABELS[b]} (by {number(d['mean'])})"
            for a, b, d in pairs if d["mean"] >= 0) + "."  # fmt: skip
    return ("The published ablation has, in loss, upcycled with scaling < upcycled without < "
            "from scratch. " + text)  # fmt: skip


def blocks(data, languages, corpus):
    """The report as a list of headings, paragraphs and tables."""
    models, settings = data["models"], data["settings"]
    names = [name for name in LABELS if name in models]
    parent = models["parent"]["runs"][0]
    seeds = settings["seeds"]
    out = [("h1", "Marco-Pico: dense and sparse at equal tokens")]
    if settings["quick"]:
        out.append(("p", "Made with --quick: this shows that all works, and nothing about the "
                    "method."))  # fmt: skip
    out.append(("p", verdict(models)))
    out.append(("p", f"The parent saw {parent['tokens']:,} tokens. Each of the others then saw "
                f"{models['dense']['runs'][0]['tokens']:,} more, the same in the same order for "
                f"the same seed, at the same learning rates; {seeds} seed{'s'[:seeds != 1]}. "
                "The mixture from scratch is the upcycled ones' shape with random weights and saw "
                "those tokens only. Loss is cross-entropy in nats a token over held-out "
                "documents; which of them are taken first depends on the seed, so differences "
                "within a seed are sharper than the spread of the losses, the standard deviation "
                "over seeds. Seeds share the parent: what another parent would change is not in "
                "it."))  # fmt: skip
    rows = []
    for name in names:
        model, run = models[name], models[name]["runs"][0]
        before = summary([r["loss_before"] for r in model["runs"]])["mean"]
        rows.append([LABELS[name], f"{run['total_params']:,}", f"{run['active_params']:,}",
                     number(before), with_spread(model["loss"]), number(model["bits"]["mean"])])
    out.append(("table", ["model", "parameters", "active", "loss before", "loss after",
                          "bits per byte"], rows))  # fmt: skip
    rows = []
    for a, b in (("scaled", "unscaled"), ("unscaled", "scratch"), ("scaled", "dense")):
        d = differences(models, a, b)
        rows.append([f"{LABELS[a]} - {LABELS[b]}", with_spread(d),
                     f"{sum(v < 0 for v in d['values'])} of {len(d['values'])}"])  # fmt: skip
    out.append(("h2", "Differences in loss, seed by seed"))
    out.append(("table", ["difference", "loss", "seeds in which it is below 0"], rows))
    shared = [lang for lang in languages if all(lang in models[n]["languages"] for n in names)]
    better = sum(models["scaled"]["languages"][lang]["mean"]
                 < models["dense"]["languages"][lang]["mean"] for lang in shared)  # fmt: skip
    out.append(("h2", "Bits per byte of held-out text, by language"))
    out.append(("p", f"Upcycled with scaling is below the parent trained further in {better} of "
                f"{len(shared)} languages. Means over seeds; ± is the standard deviation."))
    rows = []
    for lang in shared:
        row = [lang, f"{data['data'][lang]['valid_bytes']:,}"]
        for name in names:
            s = models[name]["languages"][lang]
            row.append(number(s["mean"], 3) + (f" ± {number(s['sd'], 3)}" if s["sd"] else ""))
        rows.append(row)
    out.append(("table", ["", "bytes held out"] + [LABELS[name] for name in names], rows))
    out += [("h2", "Speed"), ("table", ["model", "tokens per second", "share of the F32 roof",
                                        "seconds of a run", "dead experts at the end"],
             [[LABELS[n], f"{run['tokens'] / run['seconds']:,.0f}" if run["seconds"] else "",
               f"{run['roof_share']:.2f}" if run["roof_share"] else "unknown",
               f"{run['seconds']:.0f}", str(run["dead_experts"])]
              for n in names for run in models[n]["runs"][:1]])]  # fmt: skip
    out += corpus_blocks(corpus)
    out.append(("h2", "Settings"))
    out.append(("pre", json.dumps(settings, indent=1)))
    return out


def corpus_blocks(corpus):
    file = os.path.join(corpus, "corpus.json")
    if not os.path.exists(file):
        return []
    about = read_json(file)
    rows = [[lang, f"{item['bytes']:,}", f"{item['documents']:,}",
             ", ".join(f"{name} {size * 100 // max(1, item['bytes'])} %"
                       for name, size in list(item["packages"].items())[:4])]
            for lang, item in about["languages"].items()]  # fmt: skip
    missing = " Not to be had, left out: " + ", ".join(about["missing"]) + "."
    return [
        ("h2", "Corpus"),
        ("p", f"{about['bytes']:,} bytes from {len(about['packages'])} packages; versions and "
         "licences are in corpus.json." + (missing if about["missing"] else "")),  # fmt: skip
        ("table", ["", "bytes", "documents", "most of it from"], rows),
    ]


def as_markdown(items):
    parts = []
    for kind, *rest in items:
        if kind in ("h1", "h2"):
            parts.append("#" * int(kind[1]) + " " + rest[0])
        elif kind == "p":
            parts.append(rest[0])
        elif kind == "pre":
            parts.append("```json\n" + rest[0] + "\n```")
        else:
            head, rows = rest
            align = ["---"] + ["---:"] * (len(head) - 1)
            parts.append("\n".join("| " + " | ".join(r) + " |" for r in [head, align] + rows))
    return "\n\n".join(parts) + "\n"


STYLE = """:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;
margin:2rem auto;padding:0 1rem}div{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem}
td,th{padding:.25rem .75rem;text-align:right;border-bottom:1px solid #8884;white-space:nowrap;
font-variant-numeric:tabular-nums}td:first-child,th:first-child{text-align:left}"""


def as_html(items):
    parts = []
    for kind, *rest in items:
        if kind != "table":
            parts.append(f"<{kind}>{html.escape(rest[0])}</{kind}>")
            continue
        lines = []
        for tag, row in [("th", rest[0])] + [("td", row) for row in rest[1]]:
            cells = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
            lines.append(f"<tr>{cells}</tr>")
        parts.append("<div><table>" + "\n".join(lines) + "</table></div>")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>Marco-Pico</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + '\n<p><a href="curves.html">Curves of the first seed</a></p>\n</body></html>\n'
    )


def write(folder, out, settings, languages, variants, corpus):
    """Makes the folder with report.json, report.md and report.html, which links to curves.html."""
    data = collect(out, settings, languages, variants)
    items = blocks(data, languages, corpus)
    os.makedirs(folder)
    texts = {"report.json": json.dumps(data, indent=1) + "\n", "report.md": as_markdown(items),
             "report.html": as_html(items)}  # fmt: skip
    for name, text in texts.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)

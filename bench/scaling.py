#!/usr/bin/env python3
"""What training on many machines sends and holds.

scaling.py tables      the tables of docs/scaling.md, by arithmetic alone (--write: into the file)
scaling.py check RUN   the same formulas against the counters that a run's processes kept
"""
import argparse
import json
import pathlib
import sys
from dataclasses import dataclass

DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs" / "scaling.md"
GRAIN = 64  # elements, the least that a process's share of a section is a multiple of
LINE = 16  # elements, the least that one tensor takes


@dataclass(frozen=True)
class Shape:
    """A model all of whose layers are sparse."""

    layers: int
    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    experts: int
    used: int
    expert_dim: int
    vocab: int
    tied: bool = True

    def shared(self):
        """Elements of each tensor that all processes hold."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        layer = [self.dim, queries * self.dim, keys * self.dim, keys * self.dim, self.head_dim,
                 self.head_dim, self.dim * queries, self.dim, self.experts * self.dim]
        ends = [self.vocab * self.dim] * (1 if self.tied else 2) + [self.dim]
        return layer * self.layers + ends

    def expert(self):
        """Elements of each tensor of one expert."""
        return [self.dim * self.expert_dim] * 3

    def total(self):
        return sum(self.shared()) + self.layers * self.experts * sum(self.expert())

    def active(self):
        """Parameters that a token is multiplied with: the embedding counts once, as the output."""
        return sum(self.shared()) + self.layers * self.used * sum(self.expert())

    def flops(self, context):
        """Of one token, forward and back, in a sequence of `context` tokens."""
        keys = (context + 1) / 2
        return 6 * self.active() + 12 * self.heads * self.head_dim * keys * self.layers


MINI = Shape(layers=28, dim=1024, heads=16, kv_heads=8, head_dim=128, experts=256, used=8,
             expert_dim=768, vocab=151936)


@dataclass(frozen=True)
class Layout:
    """P processes, experts spread over X of them."""

    processes: int
    experts: int

    def replicas(self):
        return self.processes // self.experts


def section(tensors, sharers):
    """Elements of a section, padded so that each process has an equal share."""
    size = sum((n + LINE - 1) // LINE * LINE for n in tensors)
    grain = GRAIN * sharers
    return (size + grain - 1) // grain * grain


def sections(shape, layout):
    own = [shape.experts // layout.experts * n for n in shape.expert()] * shape.layers
    return section(shape.shared(), layout.processes), section(own, layout.replicas())


def memory(shape, layout, bf16=False):
    """Bytes of one process: weights, gradients, its share of the optimiser's state."""
    value, state = (2, 12) if bf16 else (4, 8)
    shared, own = sections(shape, layout)
    return ((shared + own) * (value + 4) + shared // layout.processes * state
            + own // layout.replicas() * state)


def rows(shape, layout, recompute=False):
    """Bytes that a token's rows are in a step where choices fall evenly on the processes.

    Forward: the row goes to its expert and comes back. Backward: the row again, the gradient of
    the expert's output; the gradient of the row comes back, and one number for the choice's
    weight. With recomputation forward twice.
    """
    floats = 5 * shape.dim + 1 + (2 * shape.dim if recompute else 0)
    away = (layout.experts - 1) / layout.experts
    return shape.layers * shape.used * away * floats * 4


def traffic(shape, layout, tokens, passes=1, bf16=False, recompute=False, every_pass=False):
    """Bytes that one process sends in a step; tokens and passes are its own."""
    value = 2 if bf16 else 4
    shared, own = sections(shape, layout)
    others = layout.processes - 1
    shares = shared // layout.processes * others, own // layout.replicas() * (layout.replicas() - 1)
    announced = passes * (2 if recompute else 1) * (layout.experts > 1)
    counts = shape.experts // layout.experts * 8 * (layout.experts - 1)
    loads = shape.layers * shape.experts * (1 + (passes if every_pass else 0))
    return {
        # Loads of experts, entropies of layers, losses, the gradient's norm.
        "reduce": others * 8 * (loads + shape.layers + 9),
        "scatter": sum(shares) * 4,
        # And a word whether all are well: of each step, and of each layer whose rows are counted.
        "gather": sum(shares) * value + others * 8 * (2 + shape.layers * announced),
        "experts": tokens * rows(shape, layout, recompute) + shape.layers * announced * counts,
    }


# ---- the tables ----------------------------------------------------------------------------------

TOKENS, CONTEXT = 512 * 8192, 8192
RATES = (1e12, 4e12)  # F32 operations a second that training sustains on one node
LINKS = (10, 25, 100, 200)  # Gbit/s, each way


def layouts():
    for processes in (1, 2, 4, 8, 16, 32, 64):
        for experts in sorted({processes, min(8, processes), 1}):
            yield Layout(processes, experts)


def gigabytes(n):
    return f"{n / 1e9:.1f}" if n < 99.95e9 else f"{n / 1e9:.0f}"


def seconds(s):
    return "-" if s == 0 else f"{s:.1f}" if s < 99.95 else f"{s:,.0f}"


def memory_table():
    out = ["| nodes | experts over | F32, GB a node | BF16 with F32 masters, GB a node |",
           "|---|---|---|---|"]
    for layout in layouts():
        out.append(f"| {layout.processes} | {layout.experts} | {gigabytes(memory(MINI, layout))} | "
                   f"{gigabytes(memory(MINI, layout, bf16=True))} |")
    return out


def traffic_table():
    head = ["nodes", "experts over", "gradients out", "values out", "rows out"]
    head += [f"at {link} Gbit/s" for link in LINKS]
    head += [f"computing at {rate / 1e12:g} TFLOP/s" for rate in RATES]
    out = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for layout in layouts():
        tokens = TOKENS / layout.processes
        sent = traffic(MINI, layout, tokens)
        cells = [str(layout.processes), str(layout.experts)]
        cells += [gigabytes(sent[k]) for k in ("scatter", "gather", "experts")]
        cells += [seconds(sum(sent.values()) * 8 / (link * 1e9)) for link in LINKS]
        cells += [seconds(tokens * MINI.flops(CONTEXT) / rate) for rate in RATES]
        out.append(f"| {' | '.join(cells)} |")
    return out


def crossing():
    """Tokens a process and step above which rows cost more than the gradients they save."""
    many = Layout(64, 64)
    saved = MINI.layers * MINI.experts * sum(MINI.expert()) * 8
    return saved / rows(MINI, many)


def tables(args):
    made = {"memory": memory_table(), "traffic": traffic_table()}
    if not args.write:
        for name, lines in made.items():
            print(name, *lines, "", sep="\n")
        print(f"rows cost more than replicas from {crossing():,.0f} tokens a process and step on")
        return 0
    text = DOCS.read_text()
    for name, lines in made.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = before + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1]
    changed = text != DOCS.read_text()
    if args.write == "check":
        return changed
    DOCS.write_text(text)
    return 0


# ---- against a run -------------------------------------------------------------------------------


def shape_of(config):
    return Shape(layers=config["num_hidden_layers"], dim=config["hidden_size"],
                 heads=config["num_attention_heads"], kv_heads=config["num_key_value_heads"],
                 head_dim=config["head_dim"], experts=config["num_experts"],
                 used=config["num_experts_per_tok"], expert_dim=config["moe_intermediate_size"],
                 vocab=config["vocab_size"], tied=config["tie_word_embeddings"])


def check(args):
    lines = [json.loads(line) for line in (args.run / "metrics.jsonl").read_text().splitlines()]
    begun = [line for line in lines if line["kind"] == "run"][-1]
    counted = [line for line in lines[lines.index(begun):] if line["kind"] == "traffic"]
    if len(counted) < 2:
        sys.exit(f"{args.run}: fewer than two records of traffic: several processes, and "
                 "log_load_every more than once in the run")
    first, last = counted[0], counted[-1]
    steps = last["step"] - first["step"]
    recipe = begun["recipe"]
    config = sorted(args.run.glob("checkpoints/step-*/config.json"))[-1]
    shape = shape_of(json.loads(config.read_text()))
    layout = Layout(begun["processes"], begun["expert_processes"])
    sequences = recipe["batch"] // layout.processes
    expected = traffic(shape, layout, sequences * recipe["seq_len"],
                       passes=-(-sequences // recipe["micro_batch"]),
                       bf16=recipe["weights"] == "bf16", recompute=recipe["recompute"],
                       every_pass=recipe["balance"]["kind"] == "global")
    print(f"{layout.processes} processes, experts over {layout.experts}, steps {first['step'] + 1} "
          f"to {last['step']}: bytes that process 0 sent in a step")
    print("| | counted | by formula | difference |", "|---|---|---|---|", sep="\n")
    bad = 0
    for kind, by_formula in expected.items():
        found = (last[kind] - first[kind]) / steps
        difference = found - by_formula
        print(f"| {kind} | {found:,.0f} | {by_formula:,.0f} | {difference:+,.0f} |")
        # Rows go where routers send them; the rest is known but for words as to who is well.
        allowed = 0.1 * by_formula if kind == "experts" else 1024 if kind != "scatter" else 0
        bad += abs(difference) > allowed
    plan = begun["plan"]
    found = plan["total_bytes"] - plan["activation_bytes"]
    by_formula = memory(shape, layout, recipe["weights"] == "bf16")
    print(f"| held, as planned | {found:,} | {by_formula:,} | {found - by_formula:+,} |")
    return bad + (found != by_formula)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("tables")
    made.add_argument("--write", nargs="?", const="write", choices=("write", "check"))
    against = commands.add_parser("check")
    against.add_argument("run", type=pathlib.Path)
    args = parser.parse_args()
    sys.exit(tables(args) if args.command == "tables" else 1 if check(args) else 0)


if __name__ == "__main__":
    main()

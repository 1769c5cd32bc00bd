"""What the measuring scripts share: running marco, medians, tables."""
import concurrent.futures
import json
import mmap
import os
import statistics
import subprocess
import sys
import time

CHUNK = 8 << 20  # bytes of a read
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def add_arguments(parser, model=True):
    if model:
        parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--marco", default=os.path.join(ROOT, "build", "marco"),
                        help="the program (build/marco)")
    parser.add_argument("--threads", type=int, help="threads; marco's own choice unless given")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions (5)")
    parser.add_argument("--json", metavar="FILE", help="also write every measurement to FILE")


def parse(parser):
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if "model" in arguments and not os.path.isfile(arguments.model):
        parser.error(f"{arguments.model}: no such file")
    if not os.access(arguments.marco, os.X_OK):
        parser.error(f"{arguments.marco}: no such program (./dev build makes it)")
    return arguments


def say(text):
    print(text, file=sys.stderr, flush=True)


def run_json(command):
    """The one JSON object that a command prints; a failure ends the script with its message."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def bench(arguments, *options):
    """`marco bench` with these options."""
    command = [arguments.marco, "bench", "-m", arguments.model, "--json", "--quiet", *options]
    if arguments.threads:
        command += ["--threads", str(arguments.threads)]
    return run_json(command)


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def show(values, digits=2):
    s = spread(values)
    return f"{s['median']:.{digits}f} ({s['min']:.{digits}f} to {s['max']:.{digits}f})"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    print("\n".join(lines), flush=True)


def write(arguments, results):
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)
            file.write("\n")


def forget(path):
    """Drops a file from the page cache, as far as an ordinary user can."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_share(path, start, end, step):
    """Reads every step-th chunk from start on, past the page cache."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, CHUNK)
    total = 0
    for at in range(start, end - CHUNK + 1, step):
        total += os.preadv(fd, [buffer], at)
    os.close(fd)
    return total


def streams_rate(path, begin, size, streams):
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(streams) as pool:
        parts = [pool.submit(read_share, path, begin + i * CHUNK, begin + size, streams * CHUNK)
                 for i in range(streams)]
        total = sum(part.result() for part in parts)
    return total / (time.monotonic() - started)


def disk_rate(path, begin, size):
    """Bytes a second of a part of the file: one stream or four, whichever is faster."""
    return max(streams_rate(path, begin, size, streams) for streams in (1, 4))

"""Checks that scripts of tests/cli count: those that fail are printed."""
import sys

made = failed = 0


def check(what, holds, seen=None):
    global made, failed
    made += 1
    if not holds:
        failed += 1
        print(f"FAILED: {what}: {str(seen)[:1000]}")


def finish():
    print(f"{made} checks, {failed} failed")
    sys.exit(failed > 0)

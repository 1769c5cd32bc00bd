"""marco chat on a terminal: line editing, Ctrl-C during a reply, Ctrl-D, and signals that end it.

Usage: terminal.py PROGRAM"""
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time

program = os.path.abspath(sys.argv[1])


class Terminal:
    def __init__(self, *command):
        self.seen = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(command[0], command)

    def send(self, data):
        os.write(self.fd, data)

    def until(self, pattern, seconds=60):
        """Reads until the pattern appears after what earlier calls consumed."""
        deadline = time.monotonic() + seconds
        while not (match := re.search(pattern, self.seen)):
            ready = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))[0]
            try:
                data = os.read(self.fd, 65536) if ready else b""
            except OSError:
                data = b""
            if not data:
                sys.exit(f"FAILED: no {pattern!r} in {self.seen[-2000:]!r}")
            self.seen += data
        self.seen = self.seen[match.end():]

    def prompt(self):
        """Waits until a line can be typed: the editor takes over the keys after its prompt."""
        self.until(rb"> ")
        while termios.tcgetattr(self.fd)[3] & termios.ICANON:
            time.sleep(0.001)

    def status(self):
        """Waits for the end. A terminal that nobody reads would keep the program from it."""
        try:
            while os.read(self.fd, 65536):
                pass
        except OSError:  # how Linux reports the end of a terminal
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


with tempfile.TemporaryDirectory(prefix="marco-test.") as folder:
    model = os.path.join(folder, "model")
    subprocess.run([program, "synth", "tiny-qwen3moe", model, "--quiet"], check=True)
    with open(os.path.join(model, "config.json"), "r+") as file:
        config = json.load(file)
        config["max_position_embeddings"] = 100000000  # a reply as long as it takes
        file.seek(0)
        json.dump(config, file)
        file.truncate()
    saved = os.path.join(folder, "saved.json")
    chat = Terminal(program, "chat", "-m", model, "--ignore-eos")
    chat.until(rb"Ctrl-D ends")
    chat.prompt()
    chat.send(b"Hellx\bo\n")  # a mistake taken back
    chat.until(rb"\r\n.")
    chat.send(b"\x03")
    chat.until(rb"\(interrupted\)")
    chat.prompt()
    chat.send(b"half a thought\x03/save " + saved.encode() + b"\n")  # Ctrl-C clears the line
    chat.until(rb"\(saved\)")
    chat.prompt()
    text = open(saved).read()
    if '"Hello"' not in text or '"assistant"' not in text:
        sys.exit(f"FAILED: saved {text}")
    chat.send(b"\x04")
    if (status := chat.status()) != 0:
        sys.exit(f"FAILED: exit status {status}")

    for number in (signal.SIGTERM, signal.SIGHUP):
        # Waiting for a line.
        chat = Terminal(program, "chat", "-m", model, "--ignore-eos")
        chat.prompt()
        chat.send(b"half a line")
        chat.until(rb"half a line")
        os.kill(chat.pid, number)
        if (status := chat.status()) != -number:
            sys.exit(f"FAILED: idle, {number.name}: exit status {status}")
        # In the middle of a reply.
        chat = Terminal(program, "chat", "-m", model, "--ignore-eos")
        chat.prompt()
        chat.send(b"Hello\n")
        chat.until(rb"\r\n.")
        os.kill(chat.pid, number)
        if (status := chat.status()) != 130:
            sys.exit(f"FAILED: replying, {number.name}: exit status {status}")
print("ok")

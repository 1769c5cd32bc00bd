"""Starting `marco serve` on a free port of the loopback, for all tests and measurements of it."""
import os
import re
import subprocess
import tempfile
import time


class Server:
    """A server that listens: its process, port and url. What it prints goes to a file that has no
    name, where said() finds it."""

    def __init__(self, program, *options, env=None, patience=900):
        self.output = tempfile.TemporaryFile()
        command = [program, "serve", *options, "--port", "0"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.output,
                                        stderr=self.output, env={**os.environ, **(env or {})})
        found = self.wait_for(r"listening on (https?://\S+:(\d+))", patience)
        self.url, self.port = found[1], int(found[2])

    def said(self, most=1 << 20):
        size = os.fstat(self.output.fileno()).st_size
        return os.pread(self.output.fileno(), most, max(0, size - most)).decode(errors="replace")

    def wait_for(self, pattern, patience=60):
        """The match of a pattern in what it prints, once there is one; else the server is ended."""
        end = time.monotonic() + patience
        code = found = None
        try:
            while not found and code is None and time.monotonic() < end:
                time.sleep(0.02)
                code = self.process.poll()
                found = re.search(pattern, self.said())
        finally:
            if not found:
                self.process.kill()
                self.process.wait()
        if not found:
            raise SystemExit(f"{' '.join(self.process.args)}: no '{pattern}', exit status {code}\n"
                             f"{self.said(3000)}")
        return found

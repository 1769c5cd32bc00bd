#!/usr/bin/env python3
"""Two servers behind nginx as packaging/nginx.conf.example has it: pieces of a stream pass as they
come, a key stays with its machine, refusals pass, and one machine may be lost, in order or silently.

Usage: nginx.py [PROGRAM]     (needs nginx and openssl; Python's standard library only)
"""
import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KEYS = [f"key-{i}-abcdefghijklmnop" for i in range(16)]
checks = failures = 0


def check(what, holds, *seen):
    global checks, failures
    checks += 1
    if not holds:
        failures += 1
        print("FAILED:", what, *seen)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def configuration(folder, tls, plain, backends):
    """The example with this machine's ports and files, and nothing else of it changed."""
    with open(os.path.join(ROOT, "packaging", "nginx.conf.example"), encoding="utf-8") as file:
        text = file.read()
    changes = [(r"listen 443 ssl", f"listen 127.0.0.1:{tls} ssl"),
               (r"listen 80;", f"listen 127.0.0.1:{plain};"),
               (r"marco\.example\.org", "localhost"),
               (r"/etc/nginx/tls/", folder + "/"),
               (r"10\.0\.0\.11:8080 ", f"127.0.0.1:{backends[0]} "),
               (r"10\.0\.0\.12:8080 ", f"127.0.0.1:{backends[1]} ")]
    for pattern, text_new in changes:
        text, count = re.subn(pattern, text_new, text)
        if not count:
            sys.exit(f"the example has no {pattern}")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in
                        ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return (f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\n"
            f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{text}\n}}\n")


class Site:
    def __init__(self, program, folder):
        self.folder, self.processes = folder, {}
        self.tls, self.plain, *self.backends = free_ports(4)
        # Not so tiny that all of its tokens come in an instant.
        model = os.path.join(folder, "model.gguf")
        subprocess.run([program, "synth", "smollm2-135m", model, "--quiet"], check=True)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                        "-keyout", f"{folder}/marco.key", "-out", f"{folder}/marco.crt"],
                       check=True, stderr=subprocess.DEVNULL)
        with open(f"{folder}/keys", "w", encoding="utf-8") as file:
            file.write("\n".join(KEYS) + "\n")
        os.chmod(f"{folder}/keys", 0o600)
        with open(f"{folder}/nginx.conf", "w", encoding="utf-8") as file:
            file.write(configuration(folder, self.tls, self.plain, self.backends))
        # The machines' models have the same weights and other names, which tells them apart.
        self.commands = {f"machine-{i}": [
            program, "serve", "-m", f"machine-{i}={model}", "--port", str(port), "--api-key-file",
            f"{folder}/keys", "--parallel", "1", "--queue", "1", "--connections-per-address", "-1",
            "--no-log", "--quiet"] for i, port in enumerate(self.backends)}
        self.commands["nginx"] = ["nginx", "-p", folder, "-e", f"{folder}/error.log", "-c",
                                  f"{folder}/nginx.conf"]
        self.ports = dict(zip(self.commands, [*self.backends, self.plain]))
        self.trust = ssl.create_default_context(cafile=f"{folder}/marco.crt")
        self.start(*self.commands)

    def start(self, *names):
        for name in names:
            self.processes[name] = subprocess.Popen(self.commands[name], stdin=subprocess.DEVNULL)
        for name in names:
            self.listening(name)

    def listening(self, name):
        for _ in range(600):
            code = self.processes[name].poll()
            if code is not None:
                sys.exit(f"{' '.join(self.commands[name])}: exit status {code}")
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.ports[name])) == 0:
                    return
            time.sleep(0.05)
        sys.exit(f"nobody listens on port {self.ports[name]}")

    def end(self, *names):
        """The last one's exit status."""
        for name in names:
            if self.processes[name].poll() is None:
                self.processes[name].terminate()
        return [self.processes[name].wait(60) for name in names][-1]

    def connect(self):
        return http.client.HTTPSConnection("localhost", self.tls, timeout=60, context=self.trust)

    def post(self, path, body, key):
        """(connection, response); the response is not read yet."""
        connection = self.connect()
        data = body if isinstance(body, bytes) else json.dumps(body)
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        connection.request("POST", path, data, headers)
        return connection, connection.getresponse()

    def ask(self, path, body, key):
        """Status, headers, JSON (or None)."""
        connection, response = self.post(path, body, key)
        data = response.read()
        connection.close()
        try:
            value = json.loads(data)
        except ValueError:
            value = None
        return response.status, response.headers, value


def machine(site, key):
    status, _, value = site.ask("/v1/completions", {"prompt": "a", "max_tokens": 1}, key)
    return value["model"] if status == 200 else status


def try_streaming(site):
    # In all less than nginx would buffer.
    body = {"prompt": "a", "max_tokens": 8, "ignore_eos": True, "logprobs": 0, "stream": True}
    connection, response = site.post("/v1/completions", body, KEYS[0])
    pieces = []
    while True:
        piece = response.read1(1 << 16)
        if not piece:
            break
        pieces.append(piece)
    connection.close()
    check("a stream's status", response.status == 200, response.status)
    check("its type", response.headers["Content-Type"].startswith("text/event-stream"))
    check("its end", pieces[-1].endswith(b"data: [DONE]\n\n"), pieces[-1][-60:])
    # Where this process is late, it finds several together.
    check("pieces as they come", len(pieces) >= 4, len(pieces))


def tokens_written(site):
    total = 0
    for port in site.backends:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {KEYS[0]}"})
        found = re.findall(r"^marco_reply_tokens_total\{.*\} (\d+)$",
                           connection.getresponse().read().decode(), re.MULTILINE)
        connection.close()
        total += int(found[0])
    return total


def try_leaving(site):
    """A client's leaving reaches the machine, whose only place is free again."""
    body = {"prompt": "b", "max_tokens": 2000, "ignore_eos": True, "logprobs": 0, "stream": True}
    before = tokens_written(site)
    for _ in range(3):
        connection, response = site.post("/v1/completions", body, KEYS[0])
        check("a place for the next", response.status == 200, response.status)
        response.read1(10)
        connection.close()
        check("and for another", machine(site, KEYS[0]) != 429)
    written = tokens_written(site) - before
    check("replies nobody waits for are not written", written < 2000, written)


def try_spreading(site):
    first = {key: machine(site, key) for key in KEYS}
    check("both machines are used", set(first.values()) == {"machine-0", "machine-1"}, first)
    again = {key: machine(site, key) for key in reversed(KEYS)}
    check("a key stays with its machine", first == again, first, again)
    return first


def try_refusals(site):
    status, _, value = site.ask("/v1/completions", {"prompt": "a"}, "wrong")
    check("a wrong key", status == 401 and value["error"], status, value)
    status, _, _ = site.ask("/v1/completions", b" " * (33 << 20), KEYS[0])
    check("too long a request", status == 413, status)
    connection = site.connect()
    connection.request("GET", "/metrics")
    check("no metrics", connection.getresponse().status == 404)
    connection.close()
    plain = http.client.HTTPConnection("127.0.0.1", site.plain, timeout=10)
    plain.request("POST", "/v1/completions", "{}")
    response = plain.getresponse()
    check("plain HTTP is sent on", response.status == 308, response.status)
    plain.close()

    # One at work, one waiting, the third of the same key is told to come again.
    body = {"prompt": "c", "max_tokens": 300, "ignore_eos": True, "logprobs": 0, "stream": True}
    held = [site.connect() for _ in range(6)]
    for connection in held:
        connection.request("POST", "/v1/completions", json.dumps(body), {
            "Content-Type": "application/json", "Authorization": f"Bearer {KEYS[0]}"})
    answers = [connection.getresponse() for connection in held]
    busy = [answer for answer in answers if answer.status == 429]
    check("429 for some", busy and len(busy) < len(held), [answer.status for answer in answers])
    check("with Retry-After", all(answer.headers["Retry-After"] for answer in busy))
    for answer in answers:
        answer.read()
    for connection in held:
        connection.close()


@contextlib.contextmanager
def in_place_of(site, name):
    """A socket at the address of a machine, which is away meanwhile; nginx forgets what it saw."""
    site.end(name)
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", site.ports[name]))
        yield s
    site.end("nginx")
    site.start(name, "nginx")


def try_silence(site, first):
    """A machine that is switched off does not even refuse: so does a socket whose queue of
    connections is full."""
    with in_place_of(site, "machine-1") as silent, contextlib.ExitStack() as held:
        silent.listen(0)
        for _ in range(8):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(silent.getsockname())
        with socket.socket() as probe:
            probe.settimeout(0.5)
            check("the stand-in is silent", probe.connect_ex(silent.getsockname()) != 0)
        after = {key: machine(site, key) for key in KEYS}
    check("the other one answers for a silent one", set(after.values()) == {"machine-0"}, first,
          after)


def try_dropping(site, first):
    """What a machine has taken is computed nowhere else."""
    key = next(key for key in KEYS if first[key] == "machine-1")
    with in_place_of(site, "machine-1") as breaking:
        breaking.listen()
        breaking.settimeout(60)
        connection = site.connect()
        connection.request("POST", "/v1/completions", '{"prompt": "a", "max_tokens": 1}', {
            "Content-Type": "application/json", "Authorization": f"Bearer {key}"})
        taken, _ = breaking.accept()
        sent = taken.recv(1 << 16)
        taken.close()
        status = connection.getresponse().status
        connection.close()
    check("a machine that hangs up", sent.startswith(b"POST ") and status == 502, status, sent)


def try_loss(site, first):
    code = site.end("machine-0")
    check("a machine stops in order", code == 0, code)
    after = {key: machine(site, key) for key in KEYS}
    check("the other one answers for it", set(after.values()) == {"machine-1"}, first, after)


def main():
    for tool in ("nginx", "openssl"):
        if not shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin"):
            print(f"skipped: {tool} is not there")
            return 0
    program = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else
                              os.environ.get("MARCO", os.path.join(ROOT, "build", "marco")))
    with tempfile.TemporaryDirectory(prefix="marco-nginx.") as folder:
        os.chmod(folder, 0o755)
        site = Site(program, folder)
        try:
            first = try_spreading(site)
            try_streaming(site)
            try_leaving(site)
            try_refusals(site)
            try_silence(site, first)
            try_dropping(site, first)
            try_loss(site, first)
        finally:
            site.end(*site.processes)
    print(f"{checks} checks, {failures} failed")
    return 1 if failures or not checks else 0


if __name__ == "__main__":
    sys.exit(main())

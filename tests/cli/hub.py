#!/usr/bin/env python3
"""A stand-in for a Hugging Face-compatible hub, on 127.0.0.1, with faults on order.

    hub.py FOLDER [--tls CERT KEY] [--port-file FILE]

FOLDER/OWNER/NAME holds a model's files; large ones (over --large bytes, or *.safetensors and
*.gguf) are served as the real hub serves LFS files: by a redirect to another host ("cdn"), here a
second port. The commit is a hash of the files, so it changes when they do. Revisions: main, v1, and
the commit.

Everything is logged to FOLDER/log, one JSON object a line; GET /_idle answers when no other request
is being answered, so that the log is complete. FOLDER/faults, read before every request, holds a
JSON object of faults; see FAULTS. Python's standard library only.
"""
import argparse
import hashlib
import http.server
import json
import os
import re
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.parse

FAULTS = {
    "token": None,  # the API and the files need this token
    "cut": 0,  # every answer for a large file ends after so many bytes, the connection with it
    "cut_once": 0,  # the same, once for each range
    "promise": 0,  # answers for files say that they are so many bytes longer, then end
    "flip": None,  # the file whose bytes come wrong
    "short": None,  # the file that is served one byte short
    "longer": None,  # the file that is served one byte long
    "no_ranges": False,  # answers 200 with the whole file
    "wrong_range": False,  # answers another range than was asked for
    "busy": 0,  # so many answers of 429 with Retry-After: 1, of each of the two servers
    "broken": 0,  # so many answers of 503
    "loop": False,  # redirects to itself
    "downgrade": None,  # redirects large files to this address
    "names": [],  # entries of the tree with these paths, too
    "size": {},  # sizes that the tree tells
    "delay": 0,  # seconds between chunks of 64 KiB
    "page": 1000,  # entries of the tree a page
    "huge_json": False,
    "next": None,  # what the Link header of the tree says
    "drip": False,  # the API's answers come byte by byte, ten in a second
    "garbage": None,  # the body of the API's answers
    "sha": None,  # the commit that the API tells for any revision
}


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class File:
    """A file's bytes and hashes, which are the same for every request until the file changes."""

    def __init__(self, path, large):
        with open(path, "rb") as file:
            self.data = file.read()
        self.sha1 = git_sha1(self.data)
        self.sha256 = hashlib.sha256(self.data).hexdigest()
        self.large = path.endswith((".safetensors", ".gguf", ".bin")) or len(self.data) > large
        self.name = self.sha256 if self.large else self.sha1


class Hub:
    def __init__(self, folder, large):
        self.folder, self.large = folder, large
        self.lock, self.reading = threading.Lock(), threading.Lock()
        self.known = {}  # path: (what stat says, File)
        self.counts = {}
        self.at_work = 0
        self.ordered = None

    def faults(self):
        try:
            with open(os.path.join(self.folder, "faults"), encoding="utf-8") as file:
                text = file.read()
        except FileNotFoundError:
            text = "{}"
        with self.lock:
            if text != self.ordered:
                self.ordered, self.counts = text, {}
        return {**FAULTS, **json.loads(text)}

    def file(self, path):
        stat = os.stat(path)
        key = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        with self.reading:
            if self.known.get(path, (None,))[0] != key:
                self.known[path] = key, File(path, self.large)
            return self.known[path][1]

    def files(self, model):
        root = os.path.join(self.folder, model)
        found = {}
        for here, _, names in os.walk(root):
            for name in names:
                path = os.path.join(here, name)
                found[os.path.relpath(path, root)] = self.file(path)
        return dict(sorted(found.items()))

    def commit(self, files):
        state = hashlib.sha1()
        for path, file in files.items():
            state.update(path.encode() + b"\0" + file.sha1.encode())
        return state.hexdigest()

    def first_times(self, key, limit):
        """True the first `limit` times that it is called with the key."""
        with self.lock:
            self.counts[key] = self.counts.get(key, 0) + 1
            return self.counts[key] <= limit

    def log(self, **what):
        with self.lock, open(os.path.join(self.folder, "log"), "a", encoding="utf-8") as file:
            file.write(json.dumps(what) + "\n")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(head=True)

    def do_GET(self):
        self.answer(head=False)

    def say(self, code, body=b"", head=False, **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not head:
            self.wfile.write(body)
        self.record["code"] = code

    def answer(self, head):
        hub, server = self.server.hub, self.server
        if self.path == "/_idle":
            self.record = {}
            while hub.at_work:
                time.sleep(0.01)
            return self.say(200)
        with hub.lock:
            hub.at_work += 1
        faults = hub.faults()
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path)
        self.record = {
            "server": server.role, "method": self.command, "path": self.path,
            "token": self.headers.get("Authorization"), "range": self.headers.get("Range"),
            "sent": 0, "at": time.monotonic(),
        }
        try:
            self.route(hub, faults, path, urllib.parse.parse_qs(url.query), head)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            hub.log(**self.record)
            with hub.lock:
                hub.at_work -= 1
        return None

    def route(self, hub, faults, path, query, head):
        if hub.first_times(("busy", self.server.role), faults["busy"]):
            return self.say(429, Retry_After="1")
        if hub.first_times("broken", faults["broken"]):
            return self.say(503)
        if self.server.role == "cdn":
            _, owner, name, hash_ = path.split("/", 3)
            for path, file in hub.files(f"{owner}/{name}").items():
                if file.sha256 == hash_:
                    return self.send_data(path, file, faults, head)
            return self.say(404)
        if faults["token"] and self.headers.get("Authorization") != "Bearer " + faults["token"]:
            return self.say(401, X_Error_Code="GatedRepo")
        if faults["loop"]:
            return self.say(302, Location=self.path + "x")
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/(.*)", path)
        if match:
            return self.api(hub, faults, *match.groups(), query, head)
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.*)", path)
        if match:
            return self.resolve(hub, faults, *match.groups(), head)
        return self.say(404)

    def find(self, hub, model, revision):
        """The files of a revision; None where there is no such thing, which is then answered."""
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", model) or not os.path.isdir(
            os.path.join(hub.folder, model)
        ):
            self.say(404, X_Error_Code="RepoNotFound")
            return None, None
        files = hub.files(model)
        commit = hub.commit(files)
        if revision not in ("main", "v1", "refs/pr/1", commit):
            self.say(404, X_Error_Code="RevisionNotFound")
            return None, None
        return files, commit

    def api(self, hub, faults, model, question, revision, query, head):
        files, commit = self.find(hub, model, revision)
        if files is None:
            return None
        if faults["drip"]:
            return self.send_drops()
        if faults["garbage"] is not None:
            return self.say(200, faults["garbage"].encode(), head)
        if question == "revision":
            siblings = [{"rfilename": path} for path in files]
            answer = {"id": model, "modelId": model, "sha": faults["sha"] or commit, "siblings": siblings}
            return self.say(200, json.dumps(answer).encode(), head, X_Repo_Commit=commit)
        if faults["huge_json"]:
            return self.send_endless()
        entries = []
        for path, file in files.items():
            size = faults["size"].get(path, len(file.data))
            entry = {"type": "file", "path": path, "size": size, "oid": file.sha1}
            if file.large:
                pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{file.sha256}\n"
                entry["oid"] = git_sha1(pointer.encode())
                entry["lfs"] = {"oid": file.sha256, "size": size, "pointerSize": len(pointer)}
            entries.append(entry)
        entries += [
            {"type": "file", "path": name, "size": 1, "oid": git_sha1(b"x")}
            for name in faults["names"]
        ]
        folders = {os.path.dirname(path) for path in files} - {""}
        entries += [{"type": "directory", "path": f, "size": 0, "oid": "0" * 40} for f in folders]
        first = int(query.get("cursor", ["0"])[0])
        last = first + faults["page"]
        headers = {}
        if last < len(entries):
            base = f"{self.server.scheme}://{self.headers['Host']}"
            quoted = urllib.parse.urlsplit(self.path).path
            headers["Link"] = f'<{base}{quoted}?recursive=true&cursor={last}>; rel="next"'
        if faults["next"]:
            headers["Link"] = f'<{faults["next"]}>; rel="next"'
        return self.say(200, json.dumps(entries[first:last]).encode(), head, **headers)

    def send_endless(self):
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        while True:
            self.wfile.write(b'["' + b"x" * (1 << 20))

    def send_drops(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        for _ in range(1000):
            self.wfile.write(b" ")
            time.sleep(0.1)

    def resolve(self, hub, faults, model, revision, path, head):
        files, commit = self.find(hub, model, revision)
        if files is None:
            return None
        file = files.get(path)
        if file is None:
            return self.say(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        if not file.large:
            return self.send_data(path, file, faults, head, commit)
        address = f"{faults['downgrade'] or self.server.cdn}/{model}/{file.sha256}"
        return self.say(
            302, b"Found", head, Location=address, X_Repo_Commit=commit,
            X_Linked_Size=str(len(file.data)), X_Linked_Etag=f'"{file.sha256}"',
        )

    def send_data(self, path, file, faults, head, commit=None):
        hub, data, hash_ = self.server.hub, file.data, file.name
        if faults["flip"] == path:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if faults["short"] == path:
            data = data[:-1]
        if faults["longer"] == path:
            data += b"x"
        total = len(data)
        headers = {"ETag": f'"{hash_}"', "Accept-Ranges": "bytes"}
        if commit:
            headers["X_Repo_Commit"] = commit
        code, begin, end = 200, 0, total
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if match and not faults["no_ranges"]:
            begin = int(match[1])
            end = min(total, int(match[2]) + 1) if match[2] else total
            if begin >= total:
                return self.say(416)
            if faults["wrong_range"] and begin > 0:
                begin, end = begin - 1, end - 1
            code = 206
            headers["Content_Range"] = f"bytes {begin}-{end - 1}/{total}"
        body = data[begin:end]
        cut = faults["cut"] or (
            faults["cut_once"] if hub.first_times(("cut", hash_, begin), 1) else 0
        )
        self.record["code"] = code
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) + faults["promise"]))
        self.end_headers()
        if head:
            return None
        self.close_connection = self.close_connection or faults["promise"] > 0
        for at in range(0, len(body), 1 << 16):
            piece = body[at : at + (1 << 16)]
            if cut and at + len(piece) >= cut and cut < len(body):
                self.wfile.write(piece[: max(0, cut - at)])
                self.record["sent"] += max(0, cut - at)
                # A reset, not an orderly end.
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                self.close_connection = True
                return None
            self.wfile.write(piece)
            self.record["sent"] += len(piece)
            if faults["delay"]:
                time.sleep(faults["delay"])
        return None


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass  # clients that leave, and those that do not trust the certificate


def serve(hub, role, tls, cdn=None):
    server = Server(("127.0.0.1", 0), Handler)
    server.hub, server.role, server.cdn = hub, role, cdn
    server.scheme = "https" if tls else "http"
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"{server.scheme}://127.0.0.1:{server.server_address[1]}"


def start(folder, tls=None, large=1 << 20):
    """Both servers, in threads; returns the hub's address."""
    hub = Hub(folder, large)
    return serve(hub, "hub", tls, serve(hub, "cdn", tls))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--tls", nargs=2)
    parser.add_argument("--port-file", required=True)
    options = parser.parse_args()
    address = start(options.folder, options.tls)
    with open(options.port_file + ".new", "w", encoding="utf-8") as file:
        file.write(address + "\n")
    os.rename(options.port_file + ".new", options.port_file)
    threading.Event().wait()


if __name__ == "__main__":
    sys.exit(main())

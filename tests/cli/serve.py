"""What clients of marco serve meet: keys, origins, limits, logs, signals, TLS. Run by test_serve.sh
in a scratch folder with model.gguf. Usage: serve.py PROGRAM"""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import launch  # noqa: E402
from checks import check, finish  # noqa: E402

program = sys.argv[1]


class Server(launch.Server):
    def __init__(self, *options, env=None):
        super().__init__(program, "-m", "model.gguf", *options, env=env, patience=60)

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        self.signal(signal.SIGTERM)
        return self.end()

    def end(self):
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return "did not end"

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ask(self, path, method="GET", body=None, **headers):
        """status, headers, body; Host_ and the like: names with - as _."""
        connection = self.connection()
        headers = {name.replace("_", "-").strip("-"): value for name, value in headers.items()}
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, response.headers, text

    def status(self, path, method="GET", body=None, **headers):
        return self.ask(path, method, body, **headers)[0]


def message_of(text):
    error = json.loads(text)["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    return error["message"]


def plain():
    server = Server()
    host = f"127.0.0.1:{server.port}"
    status, headers, text = server.ask("/health")
    check("health", status == 200 and json.loads(text)["status"] == "ok", text)
    check("no sniffing", headers["X-Content-Type-Options"] == "nosniff", headers)
    status, _, text = server.ask("/version")
    check("version", status == 200 and re.match(r"\d+\.\d+", json.loads(text)["version"]), text)
    status, headers, text = server.ask("/")
    policy = headers["Content-Security-Policy"] or ""
    check("the page", status == 200 and headers["Content-Type"].startswith("text/html"), headers)
    check("its policy", "default-src 'self'" in policy and "frame-ancestors 'none'" in policy
          and headers["Referrer-Policy"] == "no-referrer", headers)

    taken = subprocess.run([program, "serve", "--check", "-m", "model.gguf", "--port",
                            str(server.port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    check("--check finds the port taken", taken.returncode == 1 and b"--port" in taken.stderr
          and not taken.stdout, taken)

    # Paths and methods.
    for path in ["/nowhere", "/v1", "/v1/models/../../etc/passwd", "/..%2f..%2fetc%2fpasswd",
                 "//", "/health/", "/%e2%82"]:
        status, _, text = server.ask(path)
        check(f"no {path}", status == 404 and "here" in message_of(text), (status, text))
    status, headers, text = server.ask("/health", "POST", "{}")
    check("405", status == 405 and headers["Allow"] == "GET, HEAD, OPTIONS", headers)
    status, headers, text = server.ask("/", "DELETE")
    check("405 of the page", status == 405 and "GET" in headers["Allow"], headers)
    status, headers, text = server.ask("/tokenize", "OPTIONS")
    check("OPTIONS", status == 204 and "POST" in headers["Allow"]
          and "Access-Control-Allow-Origin" not in headers, (status, headers))
    status, headers, text = server.ask("/health", "HEAD")
    check("HEAD", status == 200 and text == b"" and int(headers["Content-Length"]) > 0, headers)
    check("errors of Anthropic's form",
          json.loads(server.ask("/v1/messages/x")[2])["error"]["type"] == "not_found_error")

    # What pages of other sites, and of names that suddenly mean this machine, may do: nothing.
    for name in ["localhost", "127.0.0.1", "[::1]", f"localhost:{server.port}", "LOCALHOST:1"]:
        check(f"Host {name}", server.status("/v1/models", Host=name) == 200)
    for name in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "",
                 "evil.example:8080", "[::2]", "localhost@evil", "xlocalhost", "[::1",
                 "localhost:80@evil.example", "localhost/evil", "localhost:x", "[::1]x"]:
        for path in ["/", "/v1/models", "/health"]:
            status, _, text = server.ask(path, Host=name)
            check(f"Host '{name}' {path}", status == 403 and "localhost" in message_of(text), text)
    for origin in ["https://evil.example", "null", "http://localhost.evil", "http://",
                   f"http://127.0.0.1:{server.port}.evil", f"http://localhost:{server.port + 1}"]:
        status, headers, text = server.ask("/v1/models", Origin=origin)
        check(f"Origin {origin}", status == 403 and "--cors" in message_of(text)
              and "Access-Control-Allow-Origin" not in headers, (status, text))
        check(f"preflight of {origin}", server.status(
            "/tokenize", "OPTIONS", Origin=origin, Access_Control_Request_Method="POST") == 403)
    check("our own page", server.status("/v1/models", Origin="http://" + host) == 200)
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
                 "application/jsonx", ""]:
        status, _, text = server.ask("/tokenize", "POST", '{"prompt": "a"}', Content_Type=kind)
        check(f"body of '{kind}'", status == 415, (status, text))
    for kind in ["application/json; charset=utf-16", 'application/json; charset="latin1"']:
        status, _, text = server.ask("/tokenize", "POST", '{"prompt": "a"}', Content_Type=kind)
        check(f"body of '{kind}'", status == 415 and "UTF-8" in message_of(text), (status, text))
    for kind in ["application/json;charset=utf-8", 'Application/JSON ; x=y; Charset="UTF-8"']:
        check(f"body of '{kind}'", server.status(
            "/tokenize", "POST", '{"prompt": "a"}', Content_Type=kind) == 200)
    status, _, text = server.ask("/tokenize", "POST", "{}", Content_Type="application/json",
                                 Content_Encoding="gzip")
    check("a compressed body", status == 415 and "gzip" in message_of(text), (status, text))
    status, _, text = server.ask("/health", Expect="wonders")
    check("wonders", status == 417, (status, text))
    check("no type", server.status("/tokenize", "POST", "{}") == 415)

    # Metrics count what was.
    status, headers, text = server.ask("/metrics")
    text = text.decode()
    check("metrics", status == 200 and headers["Content-Type"].startswith("text/plain"), headers)
    check("requests", 'marco_http_requests_total{path="/version",status="200"} 1\n' in text, text)
    check("other paths", re.search(r'_total\{path="other",status="404"\} [5-9]', text), text)
    check("models", 'marco_model_loaded{model="' in text, text)
    names = [line.split(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    check("no series twice", len(names) == len(set(names)), names)
    check("every line is a number", all(
        re.fullmatch(r'[a-z_]+(\{([a-z]+="[^"]*",?)+\})? [-+.e0-9Inf]+', line)
        for line in text.splitlines() if not line.startswith("#")), text)

    # The log: a JSON object a line, the request's texts escaped.
    connection = server.connection()
    connection.putrequest("GET", "/%22%5C%E2%80%A8%C2%9B%FFnaughty?secret=1")
    connection.endheaders()
    connection.getresponse().read()
    connection.close()
    check("exit status", server.stop() == 0)
    lines = [line for line in server.said().splitlines() if line.startswith("{")]
    rows = [json.loads(line) for line in lines]
    requests = [row for row in rows if "path" in row]
    check("loaded", any(row.get("event") == "loaded" for row in rows), rows)
    check("numbered", len({row["id"] for row in requests}) == len(requests), requests[:3])
    check("fields", all({"time", "peer", "method", "status", "ms", "bytes"} <= set(row)
                        for row in requests), requests[:3])
    check("escaped", requests[-1]["path"] == '/"\\\u2028\x9b\ufffdnaughty', requests[-1])
    check("no raw control", not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028]", "\n".join(lines)))
    check("no query", "secret" not in server.said())


def keys():
    with open("keys", "w") as file:
        file.write("# ours\nalpha-key Alice\nbeta-key\n")
    os.chmod("keys", 0o600)
    server = Server("--api-key-file", "keys", "--log", "access.log")
    check("health needs none", server.status("/health") == 200)
    check("nor does the page", server.status("/") == 200)
    for path in ["/v1/models", "/metrics", "/version"]:
        status, headers, text = server.ask(path)
        check(f"{path} without a key", status == 401 and "Bearer" in headers["WWW-Authenticate"]
              and "needed" in message_of(text), (status, text))
    for wrong in ["Bearer x", "Bearer alpha-ke", "Bearer alpha-keyy", "Bearer ", "Basic alpha-key",
                  "alpha-key", "Bearer Alice", "Bearer # ours", "Bearer " + "x" * 5000]:
        check(f"'{wrong[:20]}'", server.status("/v1/models", Authorization=wrong) == 401)
    check("a wrong x-api-key", server.status("/v1/models", x_api_key="x") == 401)
    check("keys do not count in the query", server.status("/v1/models?key=alpha-key") == 401)
    check("a key", server.status("/v1/models", Authorization="Bearer alpha-key") == 200)
    check("bearer, in any case", server.status("/v1/models", Authorization="bearer beta-key") == 200)
    check("blanks after a key", server.status("/v1/models", x_api_key="beta-key \t ") == 200
          and server.status("/v1/models", Authorization="Bearer alpha-key ") == 200)
    check("x-api-key", server.status("/v1/models", x_api_key="beta-key") == 200)
    check("a key before the type of the body",
          server.status("/tokenize", "POST", "{}", Content_Type="text/plain") == 401)

    # New keys, while a connection of the old ones stays open.
    connection = server.connection()
    connection.request("GET", "/v1/models", headers={"x-api-key": "alpha-key"})
    check("before", connection.getresponse().read() != b"")
    os.rename("access.log", "access.log.1")
    with open("keys", "w") as file:
        file.write("gamma-key Carol\n")
    server.signal(signal.SIGHUP)
    deadline = time.monotonic() + 20
    while server.status("/v1/models", x_api_key="gamma-key") != 200:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    check("a new key", server.status("/v1/models", x_api_key="gamma-key") == 200)
    connection.request("GET", "/v1/models", headers={"x-api-key": "alpha-key"})
    response = connection.getresponse()
    check("an old key", response.status == 401, response.status)
    response.read()
    connection.close()
    while not os.path.exists("access.log") and time.monotonic() < deadline:
        time.sleep(0.02)
    server.status("/v1/models", x_api_key="gamma-key")

    # A file that cannot be used changes nothing.
    with open("keys", "w") as file:
        file.write("# none\n")
    server.signal(signal.SIGHUP)
    server.wait_for("old keys and certificates stay")
    check("the last sound keys", server.status("/v1/models", x_api_key="gamma-key") == 200)
    check("exit status", server.stop() == 0)
    with open("access.log.1") as file:
        old = file.read()
    with open("access.log") as file:
        new = file.read()
    check("the log says whose", '"key":"Alice"' in old and '"key":"Carol"' in new, new)
    check("the log was opened again", '"key":"Carol"' not in old.split("\n")[0] and new, new)
    check("no key in the log", not re.search("(alpha|beta|gamma)-key", old + new + server.said()))


def cors():
    server = Server("--cors", "https://app.example")
    status, headers, _ = server.ask("/v1/models", Origin="https://app.example")
    check("a page that may", status == 200
          and headers["Access-Control-Allow-Origin"] == "https://app.example"
          and headers["Vary"] == "Origin" and "Access-Control-Allow-Credentials" not in headers,
          (status, headers))
    status, headers, _ = server.ask("/tokenize", "OPTIONS", Origin="https://app.example",
                                    Access_Control_Request_Method="POST",
                                    Access_Control_Request_Headers="content-type")
    check("its preflight", status == 204 and "POST" in headers["Access-Control-Allow-Methods"]
          and "Content-Type" in headers["Access-Control-Allow-Headers"], (status, headers))
    check("an error it may see", server.ask("/nowhere", Origin="https://app.example")[1][
        "Access-Control-Allow-Origin"] == "https://app.example")
    check("a page that may not", server.status("/v1/models", Origin="https://b.example") == 403)
    check("its host in front", server.status("/v1/models", Host="app.example") == 200)
    check("exit status", server.stop() == 0)
    server = Server("--cors", "*", "--host", "0.0.0.0", "--open")
    status, headers, _ = server.ask("/v1/models", Origin="https://any.example", Host="any.host")
    check("any page", status == 200 and headers["Access-Control-Allow-Origin"] == "*", headers)
    check("exit status", server.stop() == 0)


def limits():
    server = Server("--max-body", "1K", "--connections", "40", "--connections-per-address", "20")
    status, _, text = server.ask("/tokenize", "POST", " " * 1025, Content_Type="application/json")
    check("413", status == 413 and "1024" in message_of(text), (status, text))
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(25)]

    def ended(connection):
        connection.setblocking(False)
        try:
            return connection.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    deadline, refused = time.monotonic() + 10, 0
    while refused < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
        refused = sum(ended(connection) for connection in idle)
    check("too many connections", 5 <= refused < 10, refused)
    for connection in idle:
        connection.close()
    deadline, status = time.monotonic() + 10, 0
    while status != 200 and time.monotonic() < deadline:
        try:
            status = server.status("/health")
        except (ConnectionError, http.client.HTTPException):
            time.sleep(0.02)
    check("others, when they have gone", status == 200, status)
    check("exit status", server.stop() == 0)


def half_request(server):
    """A request of which the server has read the head, and half of the body may be on its way."""
    half = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    head = ["POST /tokenize HTTP/1.1", "Host: localhost", "Content-Type: application/json",
            "Content-Length: 10", "Expect: 100-continue"]
    half.sendall("\r\n".join([*head, "", ""]).encode())
    text = b""
    while not text.endswith(b"\r\n\r\n"):
        piece = half.recv(100)
        if not piece:
            break
        text += piece
    check("100 Continue", text.startswith(b"HTTP/1.1 100 "), text)
    half.sendall(b"12345")
    return half


def ending():
    # A request that is still being sent when the end is announced is not waited for.
    server = Server("--grace", "100")
    half = half_request(server)
    check("exit status", server.stop() == 0)
    check("nothing was cancelled", "cancelled" not in server.said(), server.said())
    check("it is in the log", '"path":"/tokenize","status":0' in server.said(), server.said())
    half.close()

    # SIGTERM before the model is loaded: waiting, blocked, when the program begins.
    def early():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        os.kill(os.getpid(), signal.SIGTERM)

    ended = subprocess.run([program, "serve", "-m", "model.gguf", "--port", "0"], timeout=30,
                           stderr=subprocess.PIPE, preexec_fn=early)
    check("SIGTERM while loading", ended.returncode == 0 and b"listening" not in ended.stderr, ended)

    # The port is looked at before the model is.
    taken = socket.create_server(("127.0.0.1", 0))
    ended = subprocess.run([program, "serve", "-m", "model.gguf", "--port",
                            str(taken.getsockname()[1])], timeout=30, stderr=subprocess.PIPE)
    check("a port that is taken", ended.returncode == 1 and b"--port" in ended.stderr
          and b"loaded" not in ended.stderr, ended)
    taken.close()


def stalled():
    """Somebody who is to read the log, and does not."""
    reader, writer = os.pipe()
    started = subprocess.Popen([program, "serve", "-m", "model.gguf", "--port", "0"],
                               stdout=subprocess.DEVNULL, stderr=writer)
    os.close(writer)
    text = b""
    while b"Ctrl-C" not in text:
        text += os.read(reader, 4096)
    port = int(re.search(rb":(\d+)", text[text.index(b"listening"):]).group(1))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    answered = 0
    for _ in range(900):  # of some 130 bytes each: more than a pipe takes
        connection.request("GET", "/health")
        answered += connection.getresponse().read() != b""
    check("a log that nobody reads", answered == 900, answered)
    connection.close()
    started.send_signal(signal.SIGTERM)
    try:
        check("an end all the same", started.wait(20) == 0)
    except subprocess.TimeoutExpired:
        check("an end all the same", False)
        started.kill()
        started.wait()
    os.close(reader)

    # Nothing where standard files should be.
    started = subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", program, "serve", "-m",
                                "model.gguf", "--port", "0", "--log", "closed.log"])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (
            os.path.exists("closed.log") and os.path.getsize("closed.log")):
        time.sleep(0.02)
    open_files = [os.readlink(f"/proc/{started.pid}/fd/{i}") for i in range(3)]
    check("missing standard files", open_files == ["/dev/null"] * 3, open_files)
    started.send_signal(signal.SIGTERM)
    check("exit status", started.wait(30) == 0)


def begin(server, **parameters):
    """A streamed completion, its first piece come; the socket."""
    body = json.dumps(dict({"prompt": "abc", "stream": True, "ignore_eos": True,
                            "logit_bias": {"97": 100}}, **parameters))
    stream = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    stream.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
                   b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                   % (len(body), body.encode()))
    text = b""
    while b"data: {" not in text:
        piece = stream.recv(4096)
        if not piece:
            break
        text += piece
    check("a stream", b" 200 OK" in text and b"data: {" in text, text)
    return stream


def rest(stream):
    text = b""
    while piece := stream.recv(65536):
        text += piece
    return text


def metric(server, name):
    text = server.ask("/metrics")[2].decode()
    return float(re.search(name + r'\{model="long"\} (\S+)', text).group(1))


def work():
    """Replies under way when their clients, or the server, leave. The model's context is made long,
    so that replies last until somebody ends them."""
    subprocess.run([program, "synth", "tiny-qwen3moe", "long"], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open("long/config.json") as file:
        config = json.load(file)
    config["max_position_embeddings"] = 10 ** 6
    with open("long/config.json", "w") as file:
        json.dump(config, file)

    def serve(*options):
        return Server("-m", "long=long", "--parallel", "4", *options)

    # Clients that leave make room: more of them, one after another, than there are places.
    server = serve()
    for _ in range(10):
        begin(server, model="long", max_tokens=900000).close()
    deadline = time.monotonic() + 30
    while metric(server, "marco_active_requests") > 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    check("nobody is left", metric(server, "marco_active_requests") == 0)
    check("tokens were counted", metric(server, "marco_reply_tokens_total") >= 10)
    check("exit status", server.stop() == 0)
    check("the log knows that they left",
          server.said().count('"finish":"cancelled"') >= 10, server.said())

    # A reply that ends in time, and ones that do not.
    server = serve("--grace", "30")
    stream = begin(server, model="long", max_tokens=200)
    server.signal(signal.SIGTERM)
    text = rest(stream)
    check("a reply is finished", b"[DONE]" in text and b'"finish_reason":"length"' in text,
          text[-300:])
    check("exit status", server.end() == 0)

    # A terminal that is closed meanwhile: there is nothing to read again.
    server = serve("--grace", "100")
    stream = begin(server, model="long", max_tokens=900000)
    server.signal(signal.SIGTERM)
    server.wait_for("shutting down")
    server.signal(signal.SIGHUP)
    check("the reply goes on", all(stream.recv(4096) for _ in range(20)))
    stream.close()
    check("exit status", server.end() == 0)
    check("the reply was not cut", "cancelled" not in server.said().split("shutting down")[1]
          .replace('"finish":"cancelled"', ""), server.said())
    server = serve("--grace", "0")
    streams = [begin(server, model="long", max_tokens=900000) for _ in range(3)]
    check("exit status", server.stop() == 0)
    check("they were cancelled", "3 requests had to be cancelled" in server.said(),
          server.said())
    texts = [rest(stream) for stream in streams]
    check("and told so", all(b"[DONE]" not in text and b"going down" in text for text in texts),
          texts[0][-300:])

    # Nor is one without a stream dropped without a word; and a second signal is impatience.
    for number in signal.SIGTERM, signal.SIGINT:
        server = serve("--grace", "0" if number == signal.SIGTERM else "100")
        body = json.dumps({"model": "long", "prompt": "abc", "max_tokens": 900000,
                           "ignore_eos": True})
        connection = server.connection()
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        while metric(server, "marco_active_requests") < 1:
            time.sleep(0.02)
        server.signal(number)
        if number == signal.SIGTERM:
            response = connection.getresponse()
            text = response.read()
            check("an answer at the end", response.status == 503 and b"going down" in text, text)
            check("exit status", server.end() == 0)
        else:
            server.wait_for("shutting down")
            status, headers, text = server.ask("/health")
            check("health says so", status == 503 and headers["Retry-After"]
                  and headers["Connection"] == "close", (status, headers))
            server.signal(signal.SIGINT)
            check("a second Ctrl-C", server.end() == -signal.SIGINT, server.said())
        connection.close()


def manager():
    """What systemd is told."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind("notify")
    listener.settimeout(30)
    server = Server(env={"NOTIFY_SOCKET": os.path.abspath("notify")})
    told = [listener.recv(1000).decode()]
    server.signal(signal.SIGHUP)
    told += [listener.recv(1000).decode(), listener.recv(1000).decode()]
    check("exit status", server.stop() == 0)
    told.append(listener.recv(1000).decode())
    listener.close()
    check("notifications", [text.split("\n")[0] for text in told]
          == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"], told)
    check("when it reloads", "MONOTONIC_USEC=" in told[1], told)


def tls():
    if not shutil.which("openssl"):
        print("skipped: TLS (no openssl to make a certificate)")
        return
    def make(name):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                        f"/CN={name}", "-addext", "subjectAltName=DNS:localhost",
                        "-keyout", f"{name}.key", "-out", f"{name}.pem"],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    make("one")
    make("two")
    shutil.copy("one.pem", "cert.pem")
    shutil.copy("one.key", "key.pem")
    server = Server("--tls-cert", "cert.pem", "--tls-key", "key.pem")

    def ask(name):
        context = ssl.create_default_context(cafile=f"{name}.pem")
        connection = http.client.HTTPSConnection("localhost", server.port, context=context,
                                                 timeout=30)
        connection.request("GET", "/health")
        status = connection.getresponse().status
        connection.close()
        return status

    check("TLS", ask("one") == 200)
    check("https in the address", "https://127.0.0.1" in server.said())
    shutil.copy("two.pem", "cert.pem")  # not yet with its key
    server.signal(signal.SIGHUP)
    server.wait_for("stay in use: TLS")
    check("the old certificate", ask("one") == 200)
    shutil.copy("two.key", "key.pem")
    server.signal(signal.SIGHUP)
    deadline, status = time.monotonic() + 20, 0
    while status != 200 and time.monotonic() < deadline:
        try:
            status = ask("two")
        except ssl.SSLError:
            time.sleep(0.05)
    check("the new certificate", status == 200, status)
    check("exit status", server.stop() == 0)


for part in plain, keys, cors, limits, ending, stalled, work, manager, tls:
    part()
finish()

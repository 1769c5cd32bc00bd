"""A stand-in for `marco serve` for the page's test: the page's files, models and replies of a known
text, some slowly, on a free port of the loopback interface."""
import http.server
import json
import pathlib
import threading
import time

WEB = pathlib.Path(__file__).resolve().parents[2] / "src/serve/web"
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
CSP = ("default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
       "object-src 'none'")

HOSTILE = """# A <b>title</b>

<img src=x onerror="window.hacked = 1"> <script>window.hacked = 2</script>
<svg onload=window.hacked=3></svg> <iframe src="javascript:parent.hacked=4"></iframe>

[a](javascript:window.hacked=5) [b](JaVaScRiPt:window.hacked=6) [c](data:text/html,<script>1</script>)
[d]( javascript:window.hacked=7) [e](vbscript:x) [f](<javascript:window.hacked=8>)
![image](https://images.example/track.png) ![x](javascript:window.hacked=9)
<javascript:window.hacked=10> &lt;img src=y onerror=window.hacked=11&gt;
[good](https://example.org/a_(b)?x="onmouseover=window.hacked=12) https://example.net/"x

```"><img src=x onerror=window.hacked=13>
</code></pre><img src=x onerror=window.hacked=14>
```

| <img src=x onerror=window.hacked=15> | b |
|---|---|
| [t](javascript:window.hacked=16) | c |

- <style>body { display: none }</style>
> <a href="javascript:window.hacked=17">x</a>
"""

MARKDOWN = """## Merging intervals

Sort by the *start*, then walk through them once. It takes **O(n log n)** time:

```python
def merge(intervals):
    merged = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return merged
```

| input | result |
|---|---|
| `[[1, 3], [2, 6]]` | `[[1, 6]]` |
| `[[1, 2], [4, 5]]` | `[[1, 2], [4, 5]]` |

1. An empty list gives an empty list.
   - Touching intervals are merged too.
2. For $n$ intervals it makes at most $n$ comparisons after sorting.

> Use `<` in place of `<=` to keep touching intervals apart.
"""

ARABIC = """شكرًا جزيلًا على مساعدتك الكريمة في إنجاز المشروع.

- كان عملك **دقيقًا** ومنظمًا
- استعملنا `libmarco` في الخادم

```c
int main(void) { return 0; }
```
"""

WORDS = "The quick brown fox jumps over the lazy dog while the slow river runs on to the sea. "


def model(name, context):
    """As the server has it in /v1/models, which tests/cli/api.py compares with this."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "marco",
            "context_length": context, "type": "model", "created_at": "1970-01-01T00:00:00Z",
            "display_name": name}


class State:
    """What a test sets and sees: the key asked for, the next refusals, the requests so far."""

    def __init__(self):
        self.key = None
        self.models = [model("example-large", 32768), model("example-small", 8192)]
        self.refusals = []  # (status, headers, message), each for one chat request
        self.requests = []
        self.gone = 0       # replies whose client left
        self.lock = threading.Lock()


def pieces_of(text):
    """Pieces as tokens cut them: some within words, some within characters' neighbours."""
    return [text[i:i + 4] for i in range(0, len(text), 4)]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body, content_type="application/json", headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Security-Policy", CSP)
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def error(self, status, message, headers=()):
        self.answer(status, {"error": {"message": message, "type": "error", "param": None,
                                       "code": None}}, headers=headers)

    def allowed(self):
        key = self.server.state.key
        if key is None or self.headers.get("Authorization") == f"Bearer {key}":
            return True
        self.error(401, "Incorrect API key")
        return False

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/v1/models":
            if self.allowed():
                self.answer(200, {"object": "list", "data": self.server.state.models})
            return
        file = WEB / ("index.html" if path == "/" else path.lstrip("/"))
        if file.parent != WEB or not file.is_file():
            self.error(404, f"There is no {path}")
            return
        self.answer(200, file.read_bytes(), TYPES[file.suffix])

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.allowed():
            return
        state = self.server.state
        with state.lock:
            state.requests.append(body)
            refusal = state.refusals.pop(0) if state.refusals else None
        if refusal:
            self.error(refusal[0], refusal[2], refusal[1])
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            self.stream(body)
        except (BrokenPipeError, ConnectionResetError):
            with state.lock:
                state.gone += 1

    def event(self, data):
        self.wfile.write(f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def delta(self, delta, finish=None):
        self.event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
                    "usage": None})

    def stream(self, body):
        asked = body["messages"][-1]["content"]
        text, pause = self.reply(asked, body)
        if "long prompt" in asked:
            for done in (512, 1024, 4000):
                self.wfile.write(f": prompt {done}/4000\n\n".encode())
                time.sleep(0.3)
        self.delta({"role": "assistant", "content": ""})
        if "think" in asked:
            for piece in pieces_of("First I consider the question."):
                self.delta({"reasoning_content": piece})
        for piece in pieces_of(text):
            self.delta({"content": piece})
            time.sleep(pause)
        if "break off" in asked:
            return
        self.delta({}, "stop")
        n_prompt = sum(len(message["content"]) for message in body["messages"]) // 4 + 8
        n_reply = len(pieces_of(text))
        self.event({"choices": [], "usage": {"prompt_tokens": n_prompt, "completion_tokens": n_reply,
                                             "total_tokens": n_prompt + n_reply}})
        self.event("[DONE]")

    def reply(self, asked, body):
        """The text and the seconds between its pieces."""
        if "hostile" in asked:
            return HOSTILE, 0
        if "intervals" in asked:
            return MARKDOWN, 0.002
        if any("\u0600" <= c <= "\u06ff" for c in asked):
            return ARABIC, 0.002
        if "slowly" in asked:
            return WORDS * 40, 0.03
        if "at length" in asked:
            return WORDS * 100, 0
        seen = len(self.server.state.requests)
        return f"Reply {seen} to {len(body['messages'])} messages: {asked}", 0.005


class Mock:
    def __enter__(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.state = self.server.state = State()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        return self

    def __exit__(self, *args):
        self.server.shutdown()
        self.server.server_close()

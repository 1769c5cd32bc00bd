"""HTTP/1.1 by hand on asyncio, so that a client may also be slow, rude or gone."""
import asyncio
import json
import socket
import struct
import time


class Gone(Exception):
    """The server closed the connection before its answer was whole."""


class Answer:
    def __init__(self):
        self.status, self.headers, self.body = 0, {}, bytearray()
        self.begun = None  # when the first byte of the body came

    def json(self):
        return json.loads(self.body)

    def events(self):
        """The data of a stream's events, comments left out."""
        return [line[6:] for line in bytes(self.body).split(b"\n") if line.startswith(b"data: ")]


class Connection:
    """`buffer`: bytes that the kernel keeps for a reader that does not read; None: its choice."""

    def __init__(self, port, buffer=None):
        self.port, self.buffer = port, buffer

    async def __aenter__(self):
        plain = socket.socket()
        if self.buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.buffer)
        plain.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", self.port))
            self.reader, self.writer = await asyncio.open_connection(sock=plain, limit=1 << 16)
        except BaseException:
            plain.close()
            raise
        self.plain = plain
        return self

    async def __aexit__(self, *_):
        self.writer.transport.abort()

    def reset(self):
        """Leaves without a farewell: RST instead of FIN."""
        raw = self.writer.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def head(self):
        answer = Answer()
        line = await self.line()
        parts = line.split(b" ", 2)
        if not parts[0].startswith(b"HTTP/1.") or len(parts) < 2:
            raise Gone(f"no HTTP answer: {line[:80]!r}")
        answer.status = int(parts[1])
        while True:
            line = await self.line()
            if not line:
                break
            name, _, value = line.partition(b":")
            answer.headers[name.strip().lower().decode()] = value.strip().decode()
        if answer.status == 100:
            return await self.head()
        return answer

    async def line(self):
        line = await self.reader.readline()
        if not line.endswith(b"\n"):
            raise Gone("the connection was closed within the answer's head")
        return line.rstrip(b"\r\n")

    async def body(self, answer, pieces=None):
        """Reads the rest. pieces: called with each piece, may wait; a true result ends it."""
        async for piece in self.parts(answer):
            if answer.begun is None:
                answer.begun = time.monotonic()
            answer.body += piece
            if pieces and await pieces(piece):
                break
        return answer

    async def parts(self, answer):
        if "chunked" in answer.headers.get("transfer-encoding", ""):
            while True:
                size = int((await self.line()).split(b";")[0], 16)
                left = size + 2
                while left > 0:
                    piece = await self.some(left)
                    left -= len(piece)
                    yield piece[:len(piece) - max(0, 2 - left)] if left < 2 else piece
                if size == 0:
                    return
        elif "content-length" in answer.headers:
            left = int(answer.headers["content-length"])
            while left > 0:
                piece = await self.some(left)
                left -= len(piece)
                yield piece
        else:
            while True:
                piece = await self.reader.read(1 << 16)
                if not piece:
                    return
                yield piece

    async def some(self, most):
        piece = await self.reader.read(min(most, 1 << 16))
        if not piece:
            raise Gone("the connection was closed within the answer's body")
        return piece


def request(method, path, body=None, key=None, more=""):
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}"
    if key:
        head += f"x-api-key: {key}\r\n" if path == "/v1/messages" else \
            f"Authorization: Bearer {key}\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return head.encode() + b"\r\n" + data

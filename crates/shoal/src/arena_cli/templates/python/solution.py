"""A codec for Matrix Compression: an HTTP server with /health, /compress and /decompress.

Each of /compress and /decompress is called in a process of its own, without a network, so only the compressed bytes
pass from one to the other. Bodies are multipart forms with one field `file`; answers are raw bytes. FastAPI works the
same way where the competition's environment has it.
"""

import argparse
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def compress(data: bytes) -> bytes:
    """bf16 little-endian: low bytes (mantissa) are nearly random, high bytes (sign and exponent) repeat."""
    return len(data).to_bytes(8, "little") + zlib.compress(data[1::2], 6) + data[0::2]


def decompress(data: bytes) -> bytes:
    length = int.from_bytes(data[:8], "little")
    low = length - length // 2
    out = bytearray(length)
    out[0::2] = data[len(data) - low :]
    out[1::2] = zlib.decompress(data[8 : len(data) - low])
    return bytes(out)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, data):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.answer(200, b'{"status":"healthy"}')

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        boundary = b"--" + self.headers["Content-Type"].split("boundary=")[1].encode()
        start = body.index(b"\r\n\r\n", body.index(boundary)) + 4
        data = body[start : body.rindex(b"\r\n" + boundary)]
        function = {"/compress": compress, "/decompress": decompress}.get(self.path)
        if function is None:
            return self.answer(404, b"")
        try:
            result = function(data)
        except Exception as error:
            return self.answer(500, str(error).encode())
        self.answer(200, result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    ThreadingHTTPServer((arguments.host, arguments.port), Handler).serve_forever()

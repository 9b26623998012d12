import json, random, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Evaluator(BaseHTTPRequestHandler):
    def do_GET(self): self.reply("ok")                       # /health
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        mark = b"--" + self.headers["Content-Type"].split("boundary=")[1].encode()
        first, rest = body.split(mark, 2)[1:]
        first = first.split(b"\r\n\r\n", 1)[1][:-2]
        if self.path == "/generate":                         # seed and index
            draw = random.Random(first)
            return self.reply(json.dumps([draw.randrange(1000) for _ in range(100)]))
        answer = rest[rest.index(b"\r\n\r\n") + 4 : rest.rindex(b"\r\n" + mark)]
        right = sorted(json.loads(first))
        try: hits = sum(a == b for a, b in zip(right, json.loads(answer)))
        except Exception: return self.reply("nan")           # counts like no answer
        self.reply(f"{hits / len(right)}\nbytes {len(answer)} B\n")
    def reply(self, text):
        self.send_response(200); self.end_headers(); self.wfile.write(text.encode())

HTTPServer(("127.0.0.1", int(sys.argv[-1])), Evaluator).serve_forever()   # started with --host 127.0.0.1 --port 8080

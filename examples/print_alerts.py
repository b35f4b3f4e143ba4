"""Print the alerts that arrive at http://127.0.0.1:9009, one per line: a webhook to try with.

python examples/print_alerts.py [PORT]
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Alerts(BaseHTTPRequestHandler):
    """Takes what automations of Prefect send."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            found = json.loads(body)
            line = f"{found['subject']}: {found['body']}"
        except (ValueError, KeyError, TypeError):
            line = body.decode(errors="replace")
        # from the network: without control characters, which a terminal would obey
        line = "".join(letter if letter.isprintable() else " " for letter in line)
        print(" ".join(line.split()), flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9009
    HTTPServer(("127.0.0.1", port), Alerts).serve_forever()

"""Receive alerts of inferd, and verify their signatures (https://www.standardwebhooks.com). Needs Python alone.

Put the address and a secret into models.toml, restart the server, and start this script with the same secret:

    [alerts]
    webhooks = ["http://127.0.0.1:8899"]
    webhook_secret = "whsec_..."              # whsec_ and the base64 of 24 to 64 random bytes

    export INFERD_WEBHOOK_SECRET=whsec_...
    python examples/webhook.py 8899
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

MAX_BODY_BYTES = 1 << 20
MAX_AGE_S = 300
SECRET = base64.b64decode(os.environ["INFERD_WEBHOOK_SECRET"].removeprefix("whsec_"))
seen: set[str] = set()


class Receiver(BaseHTTPRequestHandler):
    """Prints each alert once. inferd repeats a delivery that has no 2xx status within 15 s."""

    def do_POST(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("content-length", 0)), MAX_BODY_BYTES))
        if not self.is_genuine(body):
            self.send_error(401)
            return
        message_id = self.headers["webhook-id"]
        if message_id not in seen:  # the id is the same for each attempt at one alert
            seen.add(message_id)
            alert = json.loads(body)
            print(f"{alert['type']}: {alert['data']['text']}", flush=True)
        self.send_response(204)
        self.end_headers()

    def is_genuine(self, body: bytes) -> bool:
        """Return whether the signature is that of the secret, and not older than MAX_AGE_S."""
        message_id, timestamp, signatures = (
            self.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
        )
        if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > MAX_AGE_S:
            return False
        signed = f"{message_id}.{timestamp}.".encode() + body
        expected = "v1," + base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
        return any(hmac.compare_digest(expected, each) for each in signatures.split(" "))

    def log_message(self, *args: object) -> None:
        """Print nothing for each request."""


port = int(sys.argv[1]) if len(sys.argv) > 1 else 8899
server = HTTPServer(("127.0.0.1", port), Receiver)
print(f"waiting for alerts on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()

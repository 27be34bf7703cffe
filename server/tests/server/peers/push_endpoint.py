"""A push service and the device behind it: decrypts what comes (http_ece) and checks who sent it (py_vapid).

Prints one line of JSON for its subscription, then one for every request; `raw` is its body as it came, for who has
subscribed with keys of their own. /push/410 and the like answer that status.
"""

import base64
import http.server
import json
import os
import threading

import http_ece
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from py_vapid import Vapid02

PRIVATE = ec.generate_private_key(ec.SECP256R1())
AUTH = os.urandom(16)


SAYING = threading.Lock()


def say(**line):
    # Each request has a thread of its own.
    with SAYING:
        print(json.dumps(line), flush=True)


def claims(authorization):
    """Those of a VAPID header; the signature is checked by py_vapid against the key that the header shows."""
    scheme, _, rest = authorization.partition(" ")
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    assert scheme == "vapid"
    verified = Vapid02.verify(authorization)
    token = parts["t"].split(".")
    payload = json.loads(base64.urlsafe_b64decode(token[1] + "=="))
    return bool(verified), payload, parts["k"]


class Endpoint(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        status = int(self.path.rpartition("/")[2])
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            verified, payload, key = claims(self.headers["authorization"])
            clear = http_ece.decrypt(body, private_key=PRIVATE, auth_secret=AUTH, version="aes128gcm")
            say(
                path=self.path,
                raw=body.hex(),
                body=clear.decode(),
                encoding=self.headers["content-encoding"],
                ttl=int(self.headers["ttl"]),
                urgency=self.headers["urgency"],
                topic=self.headers["topic"],
                verified=verified,
                claims=payload,
                key=key,
            )
        except Exception as error:  # the test reads it
            say(path=self.path, raw=body.hex(), error=repr(error))
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
point = PRIVATE.public_key().public_bytes(
    serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
)
say(port=server.server_address[1], p256dh=point.hex(), auth=AUTH.hex())
server.serve_forever()

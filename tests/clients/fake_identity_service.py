"""A fake identity and compute service: answers what a login and a registration ask.

It runs in an environment of the stock SDK, whose packages sign ID tokens. It prints its port on standard output, and
serves until it is killed. Codes are `good`; refresh tokens work once.
"""

import base64
import hashlib
import json
import sys
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

ME = "11111111-1111-4111-8111-111111111111"
LINKED = "22222222-2222-4222-8222-222222222222"
ENDPOINT = "7b4a1a3e-3f55-4c7e-9d1a-0f4f0b6f8c11"
COMPUTE = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all"
AUTH = "openid urn:globus:auth:scope:auth.globus.org:manage_projects"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)

# What the tests want to be different: told on the command line.
LIFETIME = int(sys.argv[1]) if len(sys.argv) > 1 else 172800

state = {"tokens": {}, "refresh": {}, "number": 0, "asked": []}


def token(server, scope, offline=True):
    state["number"] += 1
    access, refresh = f"access-{state['number']}", f"refresh-{state['number']}"
    state["tokens"][access] = server
    state["refresh"][refresh] = (server, scope)
    return {
        "access_token": access,
        "refresh_token": refresh,
        "scope": scope,
        "expires_in": LIFETIME,
        "token_type": "Bearer",
        "resource_server": server,
        "state": "_default",
        "other_tokens": [],
    }


def identity(which):
    name = {ME: "ada", LINKED: "ada.other"}[which]
    return {
        "id": which,
        "sub": which,
        "username": f"{name}@example.org",
        "name": "Ada L.",
        "email": f"{name}@mail.example.org",
        "organization": "Example",
        "status": "used",
        "identity_provider": ME,
        "identity_type": "login",
    }


def registration(port):
    def publish(name):
        return {
            "connection_url": "amqp://u:p@127.0.0.1:9/",
            "exchange": name,
            "queue": name,
            "queue_publish_kwargs": {"exchange": name, "routing_key": f"{ENDPOINT}.{name}", "mandatory": True},
        }

    return {
        "endpoint_id": ENDPOINT,
        "task_queue_info": {
            "connection_url": "amqp://u:p@127.0.0.1:9/",
            "exchange": "tasks",
            "queue": f"{ENDPOINT}.tasks",
        },
        "result_queue_info": publish("results"),
        "heartbeat_queue_info": publish("heartbeats"),
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(self.get())

    def do_POST(self):
        self.answer(self.post())

    do_PUT = do_POST

    def path_only(self):
        # Behind `http_proxy` the target is a whole address.
        return urllib.parse.urlsplit(self.path).path

    def bearer(self):
        return state["tokens"].get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def get(self):
        path = self.path_only()
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        state["asked"].append(f"GET {path}")
        if path == "/v2/version":
            return 200, {"api": "1.0.0", "min_sdk_version": "1.0.0", "min_ep_version": "1.0.0a0"}
        if path == "/asked":
            return 200, state["asked"]
        if path == "/.well-known/openid-configuration":
            return 200, {
                "issuer": "stand-in",
                "jwks_uri": f"http://localhost:{self.server.server_port}/jwk.json",
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        if path == "/jwk.json":
            jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key()))
            return 200, {"keys": [jwk | {"alg": "RS256", "kid": "1", "use": "sig"}]}
        if self.bearer() != "auth.globus.org":
            return 401, {"error": "invalid_token"}
        if path == "/v2/oauth2/userinfo":
            return 200, identity(ME) | {"preferred_username": "ada@example.org", "identity_set": [identity(ME), identity(LINKED)]}
        if path == "/v2/api/identities":
            return 200, {"identities": [identity(one) for one in query["ids"][0].split(",")]}
        return 404, {"code": "NOT_FOUND"}

    def post(self):
        path = self.path_only()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        state["asked"].append(f"{self.command} {path}")
        if path.startswith("/v3/endpoints"):
            return (200, registration(0)) if self.bearer() == "funcx_service" else (401, {"code": "UNAUTHORIZED"})
        form = {name: values[0] for name, values in urllib.parse.parse_qs(body).items()}
        if path == "/v2/oauth2/token/revoke":
            state["tokens"].pop(form["token"], None)
            state["refresh"].pop(form["token"], None)
            return 200, {"active": False}
        if path != "/v2/oauth2/token":
            return 404, {"code": "NOT_FOUND"}
        state["asked"][-1] += f" {form['grant_type']}"
        if form["grant_type"] == "authorization_code":
            # The code of the page: the challenge that the link carried, so the verifier can be checked.
            challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
            if form["code"] != f"good-{challenge.decode()}":
                return 400, {"error": "invalid_grant"}
            now = int(time.time())
            claims = {"sub": ME, "aud": form["client_id"], "iat": now, "exp": now + 600, "iss": "stand-in"}
            top = token("auth.globus.org", AUTH)
            top["id_token"] = jwt.encode(claims, KEY, "RS256", headers={"kid": "1"})
            top["other_tokens"] = [token("funcx_service", COMPUTE)]
            return 200, top
        if form["grant_type"] == "refresh_token" and form["refresh_token"] in state["refresh"]:
            return 200, token(*state["refresh"].pop(form["refresh_token"]))
        return 400, {"error": "invalid_grant"}

    def answer(self, outcome):
        status, body = outcome
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"listening on {server.server_port}", flush=True)
server.serve_forever()

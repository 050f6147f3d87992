"""A small REST client with a client's credentials, for what a test must see or do besides the SDK."""

import base64
import json
import urllib.error
import urllib.parse
import urllib.request

SCOPE = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all"


class Refused(Exception):
    """The service answered with an error."""

    def __init__(self, status, body):
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body


class Rest:
    """One client identity at one service."""

    def __init__(self, origin, client_id, client_secret, scope=SCOPE, token=None):
        self._origin = origin
        self._scope = scope
        self._identity = (client_id, client_secret)
        self._token = token

    def token(self):
        """An access token, fetched once."""
        if self._token is None:
            form = urllib.parse.urlencode({"grant_type": "client_credentials", "scope": self._scope}).encode()
            basic = base64.b64encode(":".join(self._identity).encode()).decode()
            answer = self._ask("POST", "/v2/oauth2/token", form, f"Basic {basic}", "application/x-www-form-urlencoded")
            self._token = answer["access_token"]
        return self._token

    def get(self, path):
        return self._ask("GET", path, None, f"Bearer {self.token()}", None)

    def post(self, path, body):
        return self._ask("POST", path, json.dumps(body).encode(), f"Bearer {self.token()}", "application/json")

    def put(self, path, body):
        return self._ask("PUT", path, json.dumps(body).encode(), f"Bearer {self.token()}", "application/json")

    def delete(self, path):
        return self._ask("DELETE", path, None, f"Bearer {self.token()}", None)

    def _ask(self, method, path, body, authorization, content_type):
        headers = {"Authorization": authorization}
        if content_type:
            headers["Content-Type"] = content_type
        request = urllib.request.Request(self._origin + path, body, headers, method=method)
        # No proxy of the machine's may stand between a test and its own service.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Refused(error.code, error.read().decode(errors="replace")) from None

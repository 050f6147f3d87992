"""What the clients send to the identity service, and answers they accept."""

import base64
import os
import subprocess
import sys
import time
from urllib.parse import parse_qs, urlsplit

from .known import (
    CLIENT,
    COMPUTE_SCOPE,
    GLOBUS_GROUP,
    IDENTITY,
    MANAGE_PROJECTS,
    NATIVE_CLIENT,
    OTHER_IDENTITY,
    POLICY,
    PROJECT,
)
from .recorder import Recorder, document
from .sdk import VERSIONS

PACKAGE = "globus-sdk"
ISSUER = "http://localhost:5000"


def capture(shelf, options):
    recorder = Recorder()
    recorder.will("GET", "/v2/version", VERSIONS)

    def keep(name, asked, answer=None):
        if asked.body:
            kind = "form" if "form" in asked.content_type else "request.json"
            shelf.put(PACKAGE, f"{name}.{kind}", asked.body)
        if asked.query:
            shelf.put(PACKAGE, f"{name}.query", asked.query.encode())
        if answer is not None:
            shelf.put(PACKAGE, f"{name}.answer.json", document(answer))

    for name in ("GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_SECRET"):
        os.environ.pop(name, None)
    person(recorder, shelf, keep)
    projects_and_policies(recorder, keep)
    resource_server(recorder, keep)
    failures(recorder, keep)
    recorder.close()


def only(heard, path):
    found = [asked for asked in heard if asked.path == path]
    assert found, f"{path} was not asked for, only {heard}"
    return found[-1]


def token(resource_server, scope, **more):
    return {
        "access_token": f"access-{resource_server}",
        "scope": scope,
        "expires_in": 172800,
        "token_type": "Bearer",
        "resource_server": resource_server,
        "refresh_token": f"refresh-{resource_server}",
        "state": "_default",
        **more,
    }


def person(recorder, shelf, keep):
    """A person logs in on a terminal, looks who that is, and logs out."""
    key, jwk = rsa_key()
    configuration = {
        "issuer": ISSUER,
        "authorization_endpoint": f"{ISSUER}/v2/oauth2/authorize",
        "token_endpoint": f"{ISSUER}/v2/oauth2/token",
        "userinfo_endpoint": f"{ISSUER}/v2/oauth2/userinfo",
        "revocation_endpoint": f"{ISSUER}/v2/oauth2/token/revoke",
        "jwks_uri": f"{ISSUER}/jwk.json",
        "response_types_supported": ["code", "token", "token id_token", "id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS512"],
        "scopes_supported": ["openid", "email", "profile"],
        "claims_supported": ["at_hash", "aud", "email", "exp", "name", "nonce", "preferred_username", "iat", "iss", "sub"],
    }
    recorder.will("GET", "/.well-known/openid-configuration", configuration)
    recorder.will("GET", "/jwk.json", {"keys": [jwk]})

    compute = token("funcx_service", COMPUTE_SCOPE, expires_in=30)
    auth = token("auth.globus.org", f"openid {MANAGE_PROJECTS}", expires_in=30)
    logged_in = {**auth, "id_token": id_token(key), "other_tokens": [compute]}
    recorder.will("POST", "/v2/oauth2/token", logged_in)
    with recorder.asking() as heard:
        said = endpoint_command("login", input="the-code\n")
    url = next(word for word in said.split() if "/v2/oauth2/authorize" in word)
    shelf.put(PACKAGE, "authorize.query", urlsplit(url).query.encode())
    assert parse_qs(urlsplit(url).query)["client_id"] == [NATIVE_CLIENT]
    keep("token-authorization-code", only(heard, "/v2/oauth2/token"), logged_in)
    keep("openid-configuration", only(heard, "/.well-known/openid-configuration"), configuration)
    keep("jwk", only(heard, "/jwk.json"), {"keys": [jwk]})

    me = {
        "sub": IDENTITY,
        "preferred_username": "alice@example.edu",
        "name": "Alice Ö",
        "email": "alice@example.edu",
        "organization": "Example University",
        "identity_provider": "41143743-f3c8-4d60-bbdb-eeecaba85bd9",
        "identity_provider_display_name": "Example University",
        "last_authentication": 1775771457,
        "identity_set": [
            {
                "sub": IDENTITY,
                "username": "alice@example.edu",
                "name": "Alice Ö",
                "email": "alice@example.edu",
                "organization": "Example University",
                "identity_provider": "41143743-f3c8-4d60-bbdb-eeecaba85bd9",
                "identity_provider_display_name": "Example University",
                "last_authentication": 1775771457,
            },
            {"sub": OTHER_IDENTITY, "username": "alice@example.org", "last_authentication": None},
        ],
    }
    identities = {
        "identities": [
            {
                "id": IDENTITY,
                "username": "alice@example.edu",
                "name": "Alice Ö",
                "email": "alice@example.edu",
                "organization": None,
                "status": "used",
                "identity_provider": "41143743-f3c8-4d60-bbdb-eeecaba85bd9",
                "identity_type": "login",
            }
        ]
    }
    refreshed = {**auth, "expires_in": 172800, "other_tokens": []}
    recorder.will("POST", "/v2/oauth2/token", refreshed)
    recorder.will("GET", "/v2/oauth2/userinfo", me)
    recorder.will("GET", "/v2/api/identities", identities)
    with recorder.asking() as heard:
        endpoint_command("whoami")
    keep("token-refresh", only(heard, "/v2/oauth2/token"), refreshed)
    keep("userinfo", only(heard, "/v2/oauth2/userinfo"), me)
    keep("identities", only(heard, "/v2/api/identities"), identities)

    recorder.will("POST", "/v2/oauth2/token/revoke", {"active": False})
    with recorder.asking() as heard:
        endpoint_command("logout")
    keep("token-revoke", only(heard, "/v2/oauth2/token/revoke"), {"active": False})


def projects_and_policies(recorder, keep):
    import globus_sdk

    client = globus_sdk.AuthClient(authorizer=globus_sdk.AccessTokenAuthorizer("access"))
    project = {
        "id": PROJECT,
        "display_name": "A project",
        "project_name": "A project",
        "contact_email": "alice@example.edu",
        "admin_ids": [IDENTITY],
        "admin_group_ids": None,
        "admins": {"identities": [{"id": IDENTITY, "username": "alice@example.edu"}], "groups": []},
    }
    recorder.will("GET", "/v2/api/projects", {"projects": [project]})
    with recorder.asking() as heard:
        assert client.get_projects()["projects"][0]["id"] == PROJECT
    keep("projects", heard[-1], {"projects": [project]})
    recorder.will("POST", "/v2/api/projects", {"project": project})
    with recorder.asking() as heard:
        client.create_project("A project", "alice@example.edu", admin_ids=[IDENTITY], admin_group_ids=[GLOBUS_GROUP])
    keep("project-create", heard[-1], {"project": project})
    with recorder.asking() as heard:
        client.create_project("A project", "alice@example.edu", admin_ids=IDENTITY)
    keep("project-create-one-admin", heard[-1])

    policy = {
        "id": POLICY,
        "project_id": PROJECT,
        "display_name": "A policy",
        "description": "Ours only",
        "high_assurance": True,
        "required_mfa": True,
        "authentication_assurance_timeout": 3600,
        "domain_constraints_include": ["example.edu", "*.example.org"],
        "domain_constraints_exclude": None,
    }
    recorder.will("POST", "/v2/api/policies", {"policy": policy})
    with recorder.asking() as heard:
        created = client.create_policy(
            project_id=PROJECT,
            display_name="A policy",
            description="Ours only",
            high_assurance=True,
            authentication_assurance_timeout=3600,
            required_mfa=True,
            domain_constraints_include=["example.edu", "*.example.org"],
            domain_constraints_exclude=["bad.example.org"],
        )
    assert created["policy"]["id"] == POLICY
    keep("policy-create", heard[-1], {"policy": policy})
    with recorder.asking() as heard:
        client.create_policy(
            project_id=PROJECT, display_name="A policy", description="Any", domain_constraints_include=None
        )
    keep("policy-create-bare", heard[-1])
    recorder.will("GET", "/v2/api/policies", {"policies": [policy]})
    with recorder.asking() as heard:
        assert client.get_policies()["policies"][0]["id"] == POLICY
    keep("policies", heard[-1], {"policies": [policy]})

    consent = {
        "id": 142632,
        "status": "approved",
        "scope_name": COMPUTE_SCOPE,
        "scope": "facd7ccc-c5f4-42aa-916b-a0e270e2c2a9",
        "client": NATIVE_CLIENT,
        "effective_identity": IDENTITY,
        "dependency_path": [142632],
        "allows_refresh": True,
        "atomically_revocable": False,
        "auto_approved": False,
        "created": "2022-09-21T17:10:14.270581+00:00",
        "updated": "2022-09-21T17:10:14.270581+00:00",
        "last_used": "2024-03-18T17:34:04.719126+00:00",
    }
    recorder.will("GET", f"/v2/api/identities/{IDENTITY}/consents", {"consents": [consent]})
    with recorder.asking() as heard:
        forest = client.get_consents(IDENTITY).to_forest()
    assert forest.get_node(142632)
    keep("consents", heard[-1], {"consents": [consent]})


def resource_server(recorder, keep):
    """What a service asks for that has to know whose token it was shown."""
    import globus_sdk

    client = globus_sdk.ConfidentialAppAuthClient(CLIENT, "a secret")
    active = {
        "active": True,
        "token_type": "Bearer",
        "scope": COMPUTE_SCOPE,
        "client_id": NATIVE_CLIENT,
        "username": "alice@example.edu",
        "name": "Alice Ö",
        "email": "alice@example.edu",
        "exp": 1775771457,
        "iat": 1775598657,
        "nbf": 1775598657,
        "sub": IDENTITY,
        "aud": ["funcx_service", "facd7ccc-c5f4-42aa-916b-a0e270e2c2a9"],
        "iss": ISSUER,
        "identity_set": [IDENTITY, OTHER_IDENTITY],
    }
    recorder.will("POST", "/v2/oauth2/token/introspect", active)
    with recorder.asking() as heard:
        assert client.oauth2_token_introspect("access", include="identity_set")["active"]
    keep("introspect", heard[-1], active)
    recorder.will("POST", "/v2/oauth2/token/introspect", {"active": False})
    with recorder.asking() as heard:
        assert not client.oauth2_token_introspect("stale")["active"]
    keep("introspect-stale", heard[-1], {"active": False})

    dependent = [token("groups.api.globus.org", "urn:globus:auth:scope:groups.api.globus.org:all")]
    recorder.will("POST", "/v2/oauth2/token", dependent)
    with recorder.asking() as heard:
        answer = client.oauth2_get_dependent_tokens("access")
    assert "groups.api.globus.org" in answer.by_resource_server
    keep("token-dependent", heard[-1], dependent)


def failures(recorder, keep):
    import globus_sdk

    client = globus_sdk.NativeAppAuthClient(NATIVE_CLIENT)
    failed = {"error": "invalid_grant", "error_description": "The refresh token is not valid."}
    recorder.will("POST", "/v2/oauth2/token", failed, 400)
    with recorder.asking() as heard:
        try:
            client.oauth2_refresh_token("stale")
        except globus_sdk.AuthAPIError as error:
            assert error.http_status == 400
    keep("error-oauth", heard[-1], failed)

    client = globus_sdk.AuthClient(authorizer=globus_sdk.AccessTokenAuthorizer("access"))
    failed = {
        "errors": [
            {
                "status": "403",
                "id": "6d2f8f6e-35e5-4a0e-9b52-1a1c4ad0e8ee",
                "code": "FORBIDDEN",
                "title": "Forbidden",
                "detail": "Call must be authenticated by an admin of the project",
            }
        ],
        "error": "forbidden",
        "error_description": "Forbidden",
        "authorization_parameters": {"session_required_identities": [IDENTITY], "session_message": "Who are you?"},
    }
    recorder.will("GET", "/v2/api/projects", failed, 403)
    with recorder.asking() as heard:
        try:
            client.get_projects()
        except globus_sdk.AuthAPIError as error:
            assert error.code == "FORBIDDEN", error.code
            assert error.info.authorization_parameters.session_required_identities == [IDENTITY]
    keep("error", heard[-1], failed)


def endpoint_command(*words, input=""):
    command = [os.path.join(os.path.dirname(sys.executable), "globus-compute-endpoint"), *words]
    done = subprocess.run(command, input=input, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def rsa_key():
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    numbers = key.public_key().public_numbers()
    jwk = {
        "kty": "RSA",
        "alg": "RS512",
        "use": "sig",
        "kid": "1",
        "n": base64url(numbers.n.to_bytes(256, "big")),
        "e": base64url(numbers.e.to_bytes(3, "big")),
    }
    return key, jwk


def base64url(number):
    return base64.urlsafe_b64encode(number).rstrip(b"=").decode()


def id_token(key):
    import jwt

    now = int(time.time())
    claims = {"sub": IDENTITY, "aud": NATIVE_CLIENT, "iss": ISSUER, "iat": now, "exp": now + 600}
    return jwt.encode(claims, key, algorithm="RS512")



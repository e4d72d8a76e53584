"""Django's own login page and Django OAuth Toolkit's consent page and endpoints, mounted below /oidc.

The configuration is one line of JSON on stdin; the end of stdin is the end of the provider. It writes
``{"site": ...}`` to stdout when it listens, and lists at SITE/requests what came to its token endpoints.
"""

# Django comes from requirements.txt into a directory of its own, where the type checker does not look.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
import threading
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import django
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.conf import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SCOPES = ("openid", "email", "profile", "pydio", "offline", "offline_access")


class Server(ThreadingMixIn, WSGIServer):
    """One thread a connection: a browser holds some open that it does not use."""

    daemon_threads = True


class Handler(WSGIRequestHandler):
    """Answers without a line for each on stderr."""

    def log_message(self, *_: object) -> None:
        pass


class WithoutMigrations:
    """Makes ``migrate`` create each table at once in its last shape."""

    def __contains__(self, _app: str) -> bool:
        return True

    def __getitem__(self, _app: str) -> None:
        return None


def configure(config: dict[str, Any], database: str) -> None:
    settings.configure(
        ALLOWED_HOSTS=["localhost"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": database,
                # A transaction that reads first and writes later cannot wait for another one to end.
                "OPTIONS": {"transaction_mode": "IMMEDIATE"},
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "oauth2_provider",
        ],
        LOGIN_URL="/admin/login/",
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        MIGRATION_MODULES=WithoutMigrations(),
        OAUTH2_PROVIDER={
            "ACCESS_TOKEN_EXPIRE_SECONDS": config["access_token_seconds"],
            "COMPLIANT_BCP_RFC9700_AUTHZ_RESPONSE_ISS": True,
            "OIDC_ENABLED": True,
            "OIDC_RSA_PRIVATE_KEY": generate_key(),
            "PKCE_REQUIRED": config["pkce"] == "required",
            "REFRESH_TOKEN_REUSE_PROTECTION": True,
            "SCOPES": {scope: f"the scope {scope}" for scope in SCOPES},
        },
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],  # fast: the password is made up
        ROOT_URLCONF=__name__,
        SECRET_KEY=secrets.token_urlsafe(),
        STATIC_URL="/static/",
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        USE_TZ=True,
    )
    django.setup()


def generate_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()


def fill_database(config: dict[str, Any]) -> None:
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from oauth2_provider.models import get_application_model

    call_command("migrate", run_syncdb=True, verbosity=0)
    user = config["user"]
    get_user_model().objects.create_superuser(user["login"], user["email"], user["password"])
    application = get_application_model()
    for client in config["clients"]:
        application.objects.create(
            name=client["client_id"],
            client_id=client["client_id"],
            client_secret=client.get("client_secret", ""),
            client_type="confidential" if client.get("client_secret") else "public",
            authorization_grant_type="authorization-code",
            redirect_uris=" ".join(client["redirect_uris"]),
            algorithm="RS256",
        )


def make_urls() -> list[Any]:
    from django.contrib import admin
    from django.http import JsonResponse
    from django.urls import include, path

    return [
        path("admin/", admin.site.urls),
        path("oidc/", include("oauth2_provider.urls")),
        path("requests", lambda _request: JsonResponse(requests, safe=False)),
    ]


def recorded(application: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Note what came to a token endpoint and how it ended, without any secret, before it is answered."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] not in {"/oidc/token/", "/oidc/revoke_token/"}:
            return application(environ, start_response)
        from io import BytesIO

        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = BytesIO(body)
        status = ""

        def note_status(line: str, *rest: Any) -> Any:
            nonlocal status
            status = line.partition(" ")[0]
            return start_response(line, *rest)

        chunks = list(application(environ, note_status))
        record = describe(environ, {name: value[0] for name, value in parse_qs(body.decode()).items()})
        record["status"] = int(status)
        if record["status"] >= 400:
            record["answer"] = b"".join(chunks).decode()
        requests.append(record)
        return chunks

    return answer


def describe(environ: dict[str, Any], form: dict[str, str]) -> dict[str, Any]:
    authentication = "client_secret_post" if "client_secret" in form else "none"
    if environ.get("HTTP_AUTHORIZATION", "").startswith("Basic "):
        authentication = "client_secret_basic"
    return {
        "endpoint": environ["PATH_INFO"],
        "grant_type": form.get("grant_type", ""),
        "code_verifier": "code_verifier" in form,
        "authentication": authentication,
    }


def main() -> None:
    config = json.loads(sys.stdin.readline())
    os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"  # plain http, on loopback
    with tempfile.TemporaryDirectory() as directory:
        configure(config, os.path.join(directory, "db.sqlite3"))
        fill_database(config)
        urlpatterns.extend(make_urls())
        from django.core.wsgi import get_wsgi_application

        server = Server(("127.0.0.1", 0), Handler)
        server.set_app(recorded(get_wsgi_application()))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(json.dumps({"site": f"http://localhost:{server.server_port}"}), flush=True)
        sys.stdin.read()


urlpatterns: list[Any] = []
requests: list[dict[str, Any]] = []

if __name__ == "__main__":
    main()

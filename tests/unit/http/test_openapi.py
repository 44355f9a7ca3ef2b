"""The OpenAPI document beside what the application defines itself."""

import re
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Security
from fastapi.openapi.utils import get_openapi
from fastapi.security import APIKeyHeader, HTTPBasic
from fastapi.testclient import TestClient
from pydantic import BaseModel

from fastapi_keyauth import KeyAuth, KeyPrincipal, SessionPrincipal
from fastapi_keyauth.testing import cheap_settings


@pytest.fixture(autouse=True)
def in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)


class Problem(BaseModel):
    """A model of the application."""

    statement: str


def validate(document: dict[str, Any]) -> None:
    from openapi_spec_validator import validate  # slow to import, and every process collects the tests

    validate(document)


def build(auth: KeyAuth) -> FastAPI:
    app = FastAPI()
    auth.install(app)

    @app.get("/key")
    async def key(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> str:
        return key.id

    @app.get("/both")
    async def both(user: Annotated[SessionPrincipal, Depends(auth.require_key_and_session)]) -> str:
        return user.user_id

    @app.get("/optional")
    async def optional(key: Annotated[KeyPrincipal | None, Depends(auth.optional_key)]) -> str:
        return key.id if key else ""

    return app


def replace_openapi(app: FastAPI) -> None:
    app.openapi = lambda: get_openapi(title="mine", version="1", routes=app.routes)  # type: ignore[method-assign]


@pytest.mark.parametrize("name", ["keys_router", "dashboard_router", "leaks_router"])
def test_every_route_of_every_router_has_a_tag(name: str) -> None:
    auth = KeyAuth(cheap_settings())
    app = FastAPI(generate_unique_id_function=lambda route: f"{route.tags[0]}-{route.name}")
    app.include_router(auth.build_leaks_router() if name == "leaks_router" else getattr(auth, name), prefix="/x")
    app.openapi()


def test_what_the_application_defines_stays() -> None:
    app = build(KeyAuth(cheap_settings()))
    legacy = APIKeyHeader(name="x-legacy", scheme_name="ApiKey")
    basic = HTTPBasic(scheme_name="Session")

    @app.get("/problems", dependencies=[Security(legacy), Security(basic)])
    async def problems() -> Problem:
        return Problem(statement="1 + 1")

    document = app.openapi()
    validate(document)
    schemes, schemas = document["components"]["securitySchemes"], document["components"]["schemas"]
    assert schemes["ApiKey"] == {"type": "apiKey", "in": "header", "name": "x-legacy"}
    assert schemes["Session"] == {"type": "http", "scheme": "basic"}
    assert list(schemas["Problem"]["properties"]) == ["statement"]
    assert document["paths"]["/problems"]["get"]["security"] == [{"ApiKey": []}, {"Session": []}]
    assert document["paths"]["/both"]["get"]["security"] == [{"KeyAuthApiKey": [], "KeyAuthSession": []}]
    assert schemes["KeyAuthApiKey"]["name"] == "api-key"
    refusal = document["paths"]["/key"]["get"]["responses"]["401"]["content"]["application/problem+json"]
    assert refusal["schema"] == {"$ref": "#/components/schemas/KeyAuthProblem"}
    assert "error" in schemas["KeyAuthProblem"]["required"]


def test_the_scopes_of_require_are_documented() -> None:
    auth = KeyAuth(cheap_settings(header_name="x-key", units=["images"]))
    app = FastAPI()
    auth.install(app)
    app.get("/draw", dependencies=[Depends(auth.require(scopes=["images:write", "*"], cost={"images": 4}))])(
        lambda: None
    )
    app.get("/maybe", dependencies=[Depends(auth.require(scopes="a", optional=True))])(lambda: None)
    app.get("/me", dependencies=[Depends(auth.require(scopes=["b"], key=False, session=True))])(lambda: None)
    both = [Security(auth.require(scopes=["a"], session=True), scopes=["b"]), Security(auth.require_key, scopes=["c"])]
    app.get("/both", dependencies=both)(lambda: None)
    several = [Depends(auth.require(scopes=["a"])), Depends(auth.require(scopes=["b", "a"]))]
    app.get("/several", dependencies=several)(lambda: None)
    document = app.openapi()
    validate(document)
    assert {path: item["get"]["security"] for path, item in document["paths"].items()} == {
        "/draw": [{"ApiKey": ["images:write", "*"]}],
        "/maybe": [{"ApiKey": ["a"]}, {}],
        "/me": [{"Session": ["b"]}],
        "/both": [{"ApiKey": ["c", "a", "b"], "Session": ["a", "b"]}],
        "/several": [{"ApiKey": ["a", "b"]}],
    }
    assert set(document["components"]["securitySchemes"]) == {"ApiKey", "Session"}
    statuses = {path: set(item["get"]["responses"]) for path, item in document["paths"].items()}
    assert statuses["/draw"] >= {"401", "403", "429", "503"}
    assert "429" not in statuses["/me"]


def test_a_replaced_openapi_is_completed_from_the_start_on() -> None:
    app = build(KeyAuth(cheap_settings()))
    replace_openapi(app)
    before = app.openapi()
    names = before["components"]["securitySchemes"]
    assert [name for name in names if not re.fullmatch(r"[a-zA-Z0-9._-]+", name)] == []
    for _ in range(2):  # a second start completes no second time
        with TestClient(app) as client:
            document = client.get("/openapi.json").json()
        validate(document)
        assert document["info"]["title"] == "mine"
        assert document["paths"]["/both"]["get"]["security"] == [{"ApiKey": [], "Session": []}]
        assert document["paths"]["/optional"]["get"]["security"] == [{"ApiKey": []}, {}]


def test_starting_again_does_not_wrap_the_function_again() -> None:
    app = build(KeyAuth(cheap_settings()))
    with TestClient(app):
        function = app.openapi
    with TestClient(app):
        assert app.openapi is function


def test_each_keyauth_documents_its_own_routes() -> None:
    partner = KeyAuth(cheap_settings(header_name="x-partner-key", key_prefix="prt"))
    admin = KeyAuth(cheap_settings(header_name="x-admin-key", key_prefix="adm"))
    app = FastAPI()
    partner.install(app)
    admin.install(app)
    app.get("/partner", dependencies=[Depends(partner.require_key)])(lambda: None)
    app.get("/admin", dependencies=[Depends(admin.require_key_and_session)])(lambda: None)
    document = app.openapi()
    validate(document)
    headers = {}
    for path in ("/partner", "/admin"):
        (requirement,) = document["paths"][path]["get"]["security"]
        schemes = [document["components"]["securitySchemes"][name] for name in requirement]
        headers[path] = [scheme.get("name") for scheme in schemes]
    assert headers == {"/partner": ["x-partner-key"], "/admin": ["x-admin-key", None]}
    assert app.openapi() is document


@pytest.mark.parametrize(("accepts", "says"), [(True, True), (False, False)])
def test_the_scheme_says_that_a_key_may_come_as_bearer(accepts: bool, says: bool) -> None:
    document = build(KeyAuth(cheap_settings(accept_bearer_keys=accepts))).openapi()
    assert ("Authorization: Bearer" in document["components"]["securitySchemes"]["ApiKey"]["description"]) is says


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("ietf", {"RateLimit-Policy", "RateLimit"}),
        ("legacy", {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}),
        ("none", set()),
    ],
)
def test_the_headers_of_a_429_are_documented(mode: Any, names: set[str]) -> None:
    document = build(KeyAuth(cheap_settings(rate_limit_headers=mode))).openapi()
    responses = document["paths"]["/key"]["get"]["responses"]
    assert set(responses["429"]["headers"]) == {"Retry-After", "x-should-retry", *names}
    assert set(responses["401"]["headers"]) == {"WWW-Authenticate"}
    assert set(responses["503"]["headers"]) == {"Retry-After"}


def test_a_protected_path_is_documented_once() -> None:
    auth = KeyAuth(cheap_settings())
    app = build(auth)
    app.get("/plain")(lambda: None)
    auth.protect(app)
    document = app.openapi()
    assert document["paths"]["/plain"]["get"]["security"] == [{"ApiKey": []}]
    copied = {**document}
    app.openapi = lambda: copied  # type: ignore[method-assign]
    with TestClient(app):
        assert app.openapi()["paths"]["/plain"]["get"]["security"] == [{"ApiKey": []}]
    validate(app.openapi())


def test_every_management_route_documents_its_refusals() -> None:
    app = FastAPI()
    auth = KeyAuth(cheap_settings())
    auth.install(app)
    app.include_router(auth.keys_router, prefix="/api-keys")
    for path, item in app.openapi()["paths"].items():
        for method, operation in item.items():
            takes_key = any("ApiKey" in requirement for requirement in operation["security"])
            expected = {"401", "403", "503", *(["429"] if takes_key else []), *(["404"] if "{id}" in path else [])}
            assert expected <= set(operation["responses"]), f"{method} {path}"

"""The table of problems, and `error.problem()` for handlers of the application."""

import json

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient

from fastapi_keyauth import KeyAuth, KeyAuthError, KeyAuthSettings, SetupError, errors
from fastapi_keyauth.auth.credentials import Credentials
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.http.problem_renderer import ProblemRenderer
from fastapi_keyauth.testing import cheap_settings


def context_of(takes_key: bool = True, takes_session: bool = False) -> AuthContext:
    context = AuthContext(Credentials(), None, None)
    context.takes_key, context.takes_session = takes_key, takes_session
    return context


def test_a_bound_error_describes_the_response_that_the_plugin_would_send() -> None:
    renderer = ProblemRenderer(KeyAuthSettings(_env_file=None, header_name="x-acme-key", realm="acme"))
    error, context = errors.MissingApiKey(), context_of()
    renderer.bind(error, context)
    status, body, headers = error.problem()
    response = renderer.response(error, context)
    assert (status, body) == (response.status_code, json.loads(bytes(response.body)))
    assert "x-acme-key" in body["detail"]
    without_length = [pair for pair in response.headers.items() if pair[0] != "content-length"]
    assert list(headers.items()) == without_length
    assert [value for name, value in headers.items() if name == "www-authenticate"] == [
        'x-acme-key realm="acme"',
        'Bearer realm="acme"',
    ]


def test_a_problem_can_be_sent_as_it_is() -> None:
    error = errors.MissingApiKey()
    problem = error.problem()
    response = JSONResponse(problem.body, problem.status, problem.headers)
    assert response.headers["content-type"] == "application/problem+json"
    assert len(response.headers.getlist("www-authenticate")) == 2


def test_an_error_of_other_code_has_the_default_names() -> None:
    problem = errors.RateLimitExceeded(90, 5).problem()
    assert (problem.status, problem.body["code"]) == (429, "rate_limit_exceeded")
    assert problem.headers["retry-after"] == "90"
    assert problem.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(("seconds", "words"), [(1, "in 1 second."), (2, "in 2 seconds.")])
def test_wait_of_one_second_is_singular(seconds: int, words: str) -> None:
    assert errors.RateLimitExceeded(seconds, 5).problem().body["detail"].endswith(words)
    assert errors.AddressBlocked(seconds).problem().body["detail"].endswith(words)


def test_an_error_that_is_not_meant_for_clients_has_no_problem() -> None:
    error = SetupError("The database does not respond.")
    with pytest.raises(SetupError) as raised:
        error.problem()
    assert raised.value is error


def test_the_first_keyauth_that_binds_an_error_describes_it() -> None:
    error = errors.MissingApiKey()
    for name in ("x-first", "x-second"):
        ProblemRenderer(KeyAuthSettings(_env_file=None, header_name=name)).bind(error, context_of())
    assert "x-first" in error.problem().body["detail"]


@pytest.mark.parametrize("kind", [KeyAuthError, errors.MissingApiKey])
@pytest.mark.parametrize("is_protected", [True, False])
def test_a_handler_of_the_application_gets_the_names_of_the_settings(
    kind: type[KeyAuthError], is_protected: bool, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    auth = KeyAuth(cheap_settings(header_name="x-acme-key", realm="acme", database_url="sqlite+aiosqlite:///keys.db"))
    app = FastAPI()
    auth.install(app)

    @app.exception_handler(kind)
    async def handle(request: Request, error: KeyAuthError) -> JSONResponse:
        problem = error.problem()
        return JSONResponse({**problem.body, "mine": True}, problem.status, problem.headers)

    app.get("/", dependencies=[] if is_protected else [Depends(auth.require_key)])(lambda: None)
    if is_protected:
        auth.protect(app)
    with TestClient(app) as client:
        response = client.get("/", headers={"x-api-key": "abc"})
    assert (response.status_code, response.json()["mine"]) == (401, True)
    assert "'x-api-key' header is not read" in response.json()["detail"]
    assert "'x-acme-key' header" in response.json()["detail"]
    assert response.headers.get_list("www-authenticate") == ['x-acme-key realm="acme"', 'Bearer realm="acme"']

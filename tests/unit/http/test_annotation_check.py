"""Routes in a factory under `from __future__ import annotations`, whose dependencies FastAPI silently drops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Query

from fastapi_keyauth import KeyPrincipal, SetupError

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

    from fastapi_keyauth import KeyAuth
    from tests.helpers.stage import MakeAuth, MakeClient
    from tests.unit.http.dependency_aliases import SignedIn

STACKS = ("sqlite-memory",)


@pytest.fixture(params=STACKS)
def stack(request: Any, servers: Any, tmp_path: Any) -> Any:
    from tests.conftest import open_stack  # as the contract's tests do

    yield from open_stack(request.param, servers, tmp_path)


def in_annotation(app: FastAPI, auth: KeyAuth) -> None:
    @app.get("/notes")
    async def notes(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> str:
        return "notes"


def with_default(app: FastAPI, auth: KeyAuth) -> None:
    @app.get("/notes")
    async def notes(key: Annotated[KeyPrincipal | None, Depends(auth.require_key)] = None) -> str:
        return "notes"


def by_alias(app: FastAPI, auth: KeyAuth) -> None:
    Key = Annotated[KeyPrincipal, Depends(auth.require_key)]  # noqa: N806  # a type

    @app.get("/notes")
    async def notes(key: Key) -> str:
        return "notes"


def in_a_dependency(app: FastAPI, auth: KeyAuth) -> None:
    async def owner(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> str:
        return key.owner_id

    router = APIRouter(dependencies=[Depends(owner)])
    router.get("/notes")(lambda: "notes")
    app.include_router(router)


def in_a_websocket(app: FastAPI, auth: KeyAuth) -> None:
    @app.websocket("/notes")
    async def notes(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> None:
        """Never reached."""


def by_imported_alias(app: FastAPI, auth: KeyAuth) -> None:
    import tests.unit.http.dependency_aliases  # noqa: F401  # which any other module of an application would do

    @app.get("/notes")
    async def notes(key: SignedIn | None = None) -> str:
        return "notes"


ROUTES = (in_annotation, with_default, by_alias, by_imported_alias, in_a_dependency, in_a_websocket)


@pytest.mark.parametrize("add_route", ROUTES)
async def test_a_route_that_lost_its_dependency_stops_the_start(
    make_auth: MakeAuth, add_route: Callable[[FastAPI, KeyAuth], None]
) -> None:
    auth = make_auth()
    app = FastAPI()
    auth.install(app)
    add_route(app, auth)
    with pytest.raises(SetupError, match=r"route /notes has a parameter 'key' whose annotation"):
        await auth.__aenter__()


async def test_annotations_without_a_dependency_are_accepted(make_auth: MakeAuth, make_client: MakeClient) -> None:
    auth = make_auth()
    app = FastAPI()
    auth.install(app)

    from decimal import Decimal as Money

    Amount = Annotated[Money, "no dependency"]  # noqa: N806  # a type

    @app.get("/not-sent")
    async def not_sent(amount: Decimal | None = None, other: Amount | None = None) -> str:
        return "open"

    @app.get("/as-default")
    async def as_default(amount: Decimal = Depends(auth.require_key)) -> str:  # noqa: FAST002  # what this is about
        return "in"

    @app.get("/as-query")
    async def as_query(amount: Decimal | None = Query(default=None)) -> str:  # noqa: FAST002  # see above
        return "open"

    async with auth:
        assert (await make_client(app).get("/as-default")).status_code == 401
        assert (await make_client(app).get("/as-query")).status_code == 200
        assert (await make_client(app).get("/not-sent")).status_code == 200

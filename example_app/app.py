"""The application: ``uvicorn example_app.app:app``."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from example_app import accounts, api, teams
from example_app.auth import auth
from example_app.database import open_database


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Open the database while the application runs, and exclude startup objects from garbage collection."""
    async with open_database():
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000)
        yield


app = FastAPI(title="fastapi-keyauth example", lifespan=lifespan)
auth.install(app)
app.include_router(accounts.router)
app.include_router(teams.router)
app.include_router(api.router)
app.include_router(auth.keys_router, prefix="/api-keys")
app.include_router(auth.dashboard_router, prefix="/settings/api-keys")


@app.get("/health", tags=["Health"])
async def health() -> dict[str, str]:
    """Report that the server responds. Requires no credentials."""
    return {"status": "ok"}


@app.exception_handler(RequestValidationError)
async def refuse_input(_request: Request, error: RequestValidationError) -> JSONResponse:
    """Return FastAPI's 422 response without ``input``, which repeats the submitted data and may contain a password."""
    complaints = [{name: complaint[name] for name in ("type", "loc", "msg")} for complaint in error.errors()]
    return JSONResponse({"detail": complaints}, status_code=422)

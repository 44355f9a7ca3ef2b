# Annotations stay real objects in this module: FastAPI reads them.
"""The webhook for secret scanners: GitHub's format (its secret scanning partner program)."""

import json
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from fastapi_keyauth.errors import TemporarilyUnavailable
from fastapi_keyauth.http.routers.bodies import BodyTooLarge, read_body
from fastapi_keyauth.http.routers.signing_keys import FindKeys, SigningKeys, fetch_github_keys
from fastapi_keyauth.keys.leaks import Leaks

MAX_BODY_BYTES = 1_048_576
MAX_REPORTS = 1000
"""Maximum number of tokens in one message. Each may cost a hash, one after the other."""


def build_leaks_router(leaks: Leaks, *, find_keys: FindKeys = fetch_github_keys, revoke: bool = True) -> APIRouter:
    """Build a router with one route, ``POST ""``, which checks the signature over the raw body and reports each token.

    Mount it at the path to which the scanner sends its reports. It takes no API key: the signature is the credential.

    Args:
        leaks: Takes the reports.
        find_keys: Returns the scanner's public keys by identifier. Default: GitHub's.
        revoke: False: only record leaks and notify ``on_event``.

    Raises:
        SetupError: If the package ``cryptography`` is not installed (extra ``leaks``).
    """
    router = APIRouter(tags=["Leak reports"])
    signing_keys = SigningKeys(find_keys)

    # Not in the schema: it is not part of the API that the application offers to its clients.
    @router.post("", status_code=204, include_in_schema=False)
    async def take_reports(request: Request) -> Response:
        try:
            body = await read_body(request, MAX_BODY_BYTES)
        except BodyTooLarge:
            raise HTTPException(413, f"A message may have at most {MAX_BODY_BYTES} bytes.") from None
        identifier = request.headers.get("github-public-key-identifier", "")
        signature = request.headers.get("github-public-key-signature", "")
        # Nothing is parsed before it is known who wrote it.
        if not identifier or not signature or not await signing_keys.is_signed(body, identifier, signature):
            raise HTTPException(403, "The signature is not the scanner's.")
        unfinished: TemporarilyUnavailable | None = None
        for report in _parse(body):
            url = report.get("url")
            try:
                await leaks.report(report["token"], "github", url if isinstance(url, str) else None, revoke=revoke)
            except TemporarilyUnavailable as error:
                unfinished = error  # such as Redis away, or much to hash: the others must not wait for it
        if unfinished is not None:
            raise unfinished  # the scanner retries, and a repeated report changes nothing
        return Response(status_code=204)

    return router


def _parse(body: bytes) -> list[dict[str, Any]]:
    try:
        reports = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(422, "The message is not JSON.") from None
    if not isinstance(reports, list) or len(reports) > MAX_REPORTS:
        raise HTTPException(422, f"The message must be a list of at most {MAX_REPORTS} reports.")
    if not all(isinstance(report, dict) and isinstance(report.get("token"), str) for report in reports):
        raise HTTPException(422, "Each report must have a token.")
    return reports

"""What people write by hand: FastAPI's APIKeyHeader and a dictionary of keys. No hashes, no limits, no revocation."""

from typing import Annotated

import common
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import APIKeyHeader

KEY = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
OWNERS = {KEY: "alice"}
header = APIKeyHeader(name="api-key")
app = FastAPI(lifespan=common.tells([{"api-key": KEY}]))


async def require_owner(key: Annotated[str, Depends(header)]) -> str:
    owner = OWNERS.get(key)
    if owner is None:
        raise HTTPException(401, "Invalid API key", {"WWW-Authenticate": "APIKey"})
    return owner


@app.get("/item")
async def item(owner: Annotated[str, Depends(require_owner)]) -> dict[str, object]:
    return common.ITEM

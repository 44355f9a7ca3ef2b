"""A route that nothing protects: what all others are compared with."""

import common
from fastapi import FastAPI

app = FastAPI(lifespan=common.tells([{}]))


@app.get("/item")
async def item() -> dict[str, object]:
    return common.ITEM

"""A model API whose keys are rotated regularly, without downtime.

Start it with ``python -m example_app.shapes.rotation``.
"""

from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

from example_app.parrot import Answer, Chat
from example_app.shapes.demo import login_router, start
from fastapi_keyauth import DashboardOptions, KeyAuth, KeyAuthSettings, KeyPrincipal

auth = KeyAuth(
    KeyAuthSettings(key_prefix="svc", realm="service", default_hourly_limit=None),
    dashboard=DashboardOptions(product="Console", log_in_path="/login"),
)
app = FastAPI(title="Model API")
auth.install(app)
app.include_router(login_router(auth, "ada"))
app.include_router(auth.keys_router, prefix="/api-keys")
app.include_router(auth.dashboard_router, prefix="/settings/api-keys")


@app.post("/v1/chat/completions")
async def complete(chat: Chat, key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> Any:
    """Answer completely, or word by word."""
    answer = Answer(chat)
    if chat.stream:
        return StreamingResponse(answer.stream(), media_type="text/event-stream")
    return {**await answer.complete(), "asked_with": key.name}


if __name__ == "__main__":
    start(app, auth, "ada", __file__)

"""Everything that knows FastAPI, Starlette or ASGI."""

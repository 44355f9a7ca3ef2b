"""Generic asyncio building blocks. Nothing here knows about keys."""

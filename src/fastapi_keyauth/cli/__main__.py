"""``python -m fastapi_keyauth.cli``, equivalent to ``keyauth``."""

from fastapi_keyauth.cli import main

main()

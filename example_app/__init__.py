"""A model-API product on fastapi-keyauth: accounts, API keys, rate limits, scopes. Start it with ``make demo``."""

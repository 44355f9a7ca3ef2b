"""A small model-API product on fastapi-keyauth: accounts, API keys, quotas, scopes. Start it with ``make demo``."""

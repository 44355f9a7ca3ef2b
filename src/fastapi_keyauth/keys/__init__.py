"""The life of a key: create, read, update, rotate, revoke, import."""

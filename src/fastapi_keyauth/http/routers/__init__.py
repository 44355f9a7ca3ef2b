"""Routers that an application mounts."""

"""The self-service key page."""

"""Authentication of one request: from the token to a principal."""

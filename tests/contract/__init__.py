"""The contract, tested from the outside: requests, responses, Python names, settings."""

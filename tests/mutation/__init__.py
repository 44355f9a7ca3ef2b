"""A mutation tester for the security core: `make mutate` changes one place at a time and expects a test to fail."""

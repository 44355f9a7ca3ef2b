"""The terms of the domain and their rules. No module here performs I/O."""

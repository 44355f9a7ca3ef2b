"""The limiters on Redis: single server, Sentinel and Cluster."""

"""Three common shapes of APIs, each a complete application that is configured by settings alone."""

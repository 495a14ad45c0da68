"""The ``isthmus`` command line: a look at a running platform, over its HTTP APIs and its topics."""

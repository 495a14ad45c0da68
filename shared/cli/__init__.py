"""The ``isthmus`` command line: a running platform looked at and mended, over its HTTP APIs and its topics."""

"""The command line, and the composition root: what puts schemas, broker and services together."""

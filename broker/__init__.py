"""The machinery, which knows no single service."""

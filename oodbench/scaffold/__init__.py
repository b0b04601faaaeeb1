"""A plugin package to start from."""

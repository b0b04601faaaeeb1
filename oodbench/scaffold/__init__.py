"""The scaffold: plugin packages to start from.

It must not know the plugins that there are, but for the names that are taken.
"""

"""The registry of plugins: which there are, how they are loaded, and how the process is protected from them.

This room must not know what a plugin is for: no detector, data set, suite, run or record.
"""

from oodbench.registry.declared import declare, load_file, scoped
from oodbench.registry.entry import KINDS, Kind, PluginEntry, singular
from oodbench.registry.installed import refresh, unreadable
from oodbench.registry.lookup import entries, find, get, load, matching

__all__ = [
    "KINDS",
    "Kind",
    "PluginEntry",
    "declare",
    "entries",
    "find",
    "get",
    "load",
    "load_file",
    "matching",
    "refresh",
    "scoped",
    "singular",
    "unreadable",
]

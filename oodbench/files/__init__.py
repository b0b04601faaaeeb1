"""Files: atomic writes, locks, reads within limits, and default folders.

This room must not know what is in the files.
"""

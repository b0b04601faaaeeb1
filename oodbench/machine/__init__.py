"""The machine: processors and threads, memory, the cost of phases, and progress.

This room must not know what is computed.
"""

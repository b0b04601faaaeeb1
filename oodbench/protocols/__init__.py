"""Protocols: which samples a detector may be fitted on, and which it is tested on."""

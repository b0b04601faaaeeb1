"""The benchmark of evidence: what it costs on this machine, beside a forward and a backward pass and other libraries.

No run uses it.
"""

"""The cache: trained weights and evidence, keyed by all that decides their values, so that nothing is computed twice.

This room must not know what the tensors mean.
"""

"""Records: the immutable results of cells, the folder they are kept in, and whether they follow from their scores.

It must not know how scores are made.
"""

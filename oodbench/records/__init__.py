"""Records: the immutable results of cells, and the folder they are kept in."""

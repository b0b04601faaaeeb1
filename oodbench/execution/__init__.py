"""Who runs the jobs of a benchmark: this process, or several that meet in the results folder."""

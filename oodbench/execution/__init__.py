"""Who runs the jobs of a benchmark: this process, several that meet in the results folder, or a cluster."""

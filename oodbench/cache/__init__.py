"""Trained weights and evidence on disk, by content, so that nothing is computed twice or taken for something else."""

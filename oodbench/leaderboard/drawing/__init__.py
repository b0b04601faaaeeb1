"""Drawing: a board as markdown, HTML, CSV, LaTeX or JSON, by the suffix of its file."""

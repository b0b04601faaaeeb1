"""What a run tells of itself while it goes on: events, and the files that keep them."""

"""What a run tells of itself while it goes on: events, the files that keep them, and what they come to."""

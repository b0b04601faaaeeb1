"""Data sets: adapters with a card each, brought to a suite's input and drawn into disjoint splits."""

"""Data sets as uint8 arrays, and the one place that knows value ranges."""

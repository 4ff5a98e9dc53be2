"""One request, one path: what every session's requests do, in which order, and when they are answered."""

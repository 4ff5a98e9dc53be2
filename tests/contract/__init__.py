"""What others rely on: all stores alike, the bytes on the wire and at rest, and the rules of the house."""

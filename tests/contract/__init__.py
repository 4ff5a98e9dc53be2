"""What others rely on: every store alike, bytes on the wire and at rest, the rules of the house."""

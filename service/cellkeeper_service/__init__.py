"""The Cellkeeper service: durable, exactly-once, bit-exact streaming inference for recurrent networks."""

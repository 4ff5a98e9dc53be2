"""The process: its settings, its life cycle, and the only place that names concrete classes."""

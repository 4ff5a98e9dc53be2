"""The process: its settings, its lifecycle, and the only place that names concrete classes."""

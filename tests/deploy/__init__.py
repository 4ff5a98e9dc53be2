"""What an operator gets: compose, Kubernetes, rules, the dashboard. `python -m tests.deploy` brings compose up."""

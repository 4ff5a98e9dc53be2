"""What an operator gets: compose, Kubernetes, rules, the dashboard. `python -m tests.integration.deploy` brings compose
up."""

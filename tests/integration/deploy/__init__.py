"""What operators get: compose, Kubernetes, rules, the dashboard. `python -m tests.integration.deploy` runs compose."""

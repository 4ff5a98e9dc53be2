"""`cellkeeper doctor`: checks of a running deployment, from outside."""

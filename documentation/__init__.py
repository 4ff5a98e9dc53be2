"""The documentation site: the hook that MkDocs runs, and what makes the pages of docs/reference from the code."""

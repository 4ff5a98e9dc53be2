"""Models as people have them, each imported, served and compared with itself: `python -m examples.recipes.NAME`."""

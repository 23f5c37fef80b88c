"""Tasks: one file each, with the shared code that trains, plans, tunes and scores them."""

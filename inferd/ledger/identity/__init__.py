"""Teams, projects, users, keys, and what a key may do."""

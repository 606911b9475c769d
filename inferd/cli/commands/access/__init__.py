"""Commands for teams, projects, users and keys."""

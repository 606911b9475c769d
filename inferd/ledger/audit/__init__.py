"""The audit: checks of every table that trust no other code."""

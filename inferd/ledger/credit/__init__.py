"""Credit: accounts, grants, refunds, statements."""

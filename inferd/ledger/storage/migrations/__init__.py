"""The steps from one version of the ledger's schema to the next, one file each; schema.py lists them."""

"""Where engine and ledger meet: a request is admitted, generated, settled."""

"""Money and quotas in one SQLite file: teams, keys, grants, holds, double entry, usage, reports, audit.

Rules: docs/billing.md. Writing while the server runs goes through `writer.LedgerWriter` (commands) in the server and
through `store.Store.immediate` (`operations`) on the command line. Nothing here knows HTTP or token ids.
"""

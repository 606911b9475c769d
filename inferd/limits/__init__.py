"""Rate limits (BILLING R10, R11, R15): windows, adaptive rates and concurrency, in memory, with clocks passed in."""

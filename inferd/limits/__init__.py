"""How fast a team may go (BILLING R10, R11, R15): windows, adaptive rates, concurrency. Pure, with
clocks passed in; in memory."""

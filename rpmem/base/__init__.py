"""Small things that every room may use: target strings, variables, the log, interrupts."""

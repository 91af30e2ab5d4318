"""Pure decisions: values and `now` in, values out. No I/O, clock, randomness or logging."""

"""Values and decisions. No I/O, no clock, no chance, no framework."""
